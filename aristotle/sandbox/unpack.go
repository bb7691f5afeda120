package sandbox

import (
	"archive/tar"
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/xi2/xz"
)

// unpack makes the folder tree out of an archive: a zip that holds one .txz, which holds the installation. os.Root keeps
// every entry inside the folder, also where a link of the archive leads out.
func unpack(jar, tree string) error {
	outer, err := zip.OpenReader(jar)
	if err != nil {
		return err
	}
	defer outer.Close()
	for _, member := range outer.File {
		if !strings.HasSuffix(member.Name, ".txz") {
			continue
		}
		inner, err := member.Open()
		if err != nil {
			return err
		}
		defer inner.Close()
		plain, err := xz.NewReader(inner, 0)
		if err != nil {
			return err
		}
		return unpackTar(plain, tree)
	}
	return errors.New("the archive holds no .txz")
}

func unpackTar(r io.Reader, tree string) error {
	if err := os.Mkdir(tree, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(tree)
	if err != nil {
		return err
	}
	defer root.Close()
	entries := tar.NewReader(r)
	for {
		entry, err := entries.Next()
		if errors.Is(err, io.EOF) {
			// Modes are set explicitly here and below: under a umask of 077 uid 65534 could not enter what root unpacked.
			return root.Chmod(".", 0o755)
		}
		if err != nil {
			return err
		}
		if err := unpackEntry(root, entry, entries); err != nil {
			return fmt.Errorf("%s: %w", entry.Name, err)
		}
	}
}

func unpackEntry(root *os.Root, entry *tar.Header, content io.Reader) error {
	name := path.Clean(entry.Name)
	if !filepath.IsLocal(name) {
		return errors.New("the name leads outside")
	}
	if entry.Typeflag == tar.TypeDir {
		return mkdirs(root, name)
	}
	if err := mkdirs(root, path.Dir(name)); err != nil {
		return err
	}
	switch entry.Typeflag {
	case tar.TypeSymlink:
		return root.Symlink(entry.Linkname, name)
	case tar.TypeReg:
		f, err := root.Create(name)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, content)
		return errors.Join(err, f.Chmod(entry.FileInfo().Mode().Perm()|0o444), f.Close())
	}
	return fmt.Errorf("unexpected entry of type %q", entry.Typeflag)
}

// mkdirs is MkdirAll with modes that the umask does not narrow.
func mkdirs(root *os.Root, name string) error {
	if name == "." {
		return nil
	}
	if info, err := root.Stat(name); err == nil && info.IsDir() {
		return nil
	}
	if err := mkdirs(root, path.Dir(name)); err != nil {
		return err
	}
	if err := root.Mkdir(name, 0o755); err != nil {
		return err
	}
	return root.Chmod(name, 0o755)
}
