package sandbox

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

// archive is a packed PostgreSQL in a repository. Without a pinned checksum the one that is published beside it must be there.
type archive struct{ url, sha256 string }

// install downloads, checks and unpacks the archive. Nothing of it is run before the check, and prefix appears at once and
// whole (a rename), so that a crash anywhere in here leaves at most a temporary folder. begin is told the size in bytes.
func (a archive) install(ctx context.Context, prefix string, begin func(size int64)) error {
	work, err := os.MkdirTemp(filepath.Dir(prefix), "fetch-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	want := a.sha256
	if want == "" {
		if want, err = published(ctx, a.url+".sha256"); err != nil {
			return fmt.Errorf("published checksum: %w", err)
		}
	}
	file := filepath.Join(work, "archive.jar")
	got, err := download(ctx, a.url, file, begin)
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("the archive's SHA-256 is %s, expected is %s: it is not used", got, want)
	}
	tree := filepath.Join(work, "tree")
	if err := unpack(file, tree); err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	return os.Rename(tree, prefix)
}

func published(ctx context.Context, url string) (string, error) {
	body, _, err := get(ctx, url)
	if err != nil {
		return "", err
	}
	defer body.Close()
	text, err := io.ReadAll(io.LimitReader(body, 1024))
	if err != nil {
		return "", fmt.Errorf("read the published checksum: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// download stores url in file and returns its SHA-256 in hexadecimal.
func download(ctx context.Context, url, file string, begin func(size int64)) (string, error) {
	body, size, err := get(ctx, url)
	if err != nil {
		return "", err
	}
	defer body.Close()
	begin(size)
	f, err := os.Create(file)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	_, err = io.Copy(io.MultiWriter(f, sum), body)
	if err := errors.Join(err, f.Close()); err != nil {
		return "", fmt.Errorf("download: %w", err)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

func get(ctx context.Context, url string) (body io.ReadCloser, size int64, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, 0, fmt.Errorf("%w: the repository answers %s", ErrUnavailable, resp.Status)
	}
	return resp.Body, resp.ContentLength, nil
}
