package sandbox

import (
	"archive/tar"
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// An archive that is not the one that was pinned, or that nobody vouches for, is refused and leaves nothing.
func TestArchiveIsChecked(t *testing.T) {
	t.Parallel()
	const empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	files := map[string]string{"/tampered": "x", "/tampered.sha256": empty, "/unvouched": "x", "/empty": "", "/empty.sha256": empty + "\n"}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if text, ok := files[r.URL.Path]; ok {
			fmt.Fprint(w, text)
		} else {
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	for _, test := range []struct{ path, pinned, want string }{
		{"/tampered", empty, "the archive's SHA-256 is"},
		{"/tampered", "", "the archive's SHA-256 is"},
		{"/unvouched", "", "published checksum"},
		{"/absent", empty, "404"},
		{"/empty", "", "not a valid zip file"}, // the check passed
	} {
		cache := t.TempDir()
		err := archive{url: server.URL + test.path, sha256: test.pinned}.install(t.Context(), filepath.Join(cache, "postgresql"), func(int64) {})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: %v", test, err)
		}
		if left, err := os.ReadDir(cache); err != nil || len(left) != 0 {
			t.Errorf("%+v left %v %v", test, left, err)
		}
	}
}

// An archive cannot write outside its folder, neither by name nor through a link of its own.
func TestUnpackStaysInside(t *testing.T) {
	t.Parallel()
	for name, entries := range map[string][]tar.Header{
		"by name":        {{Name: "../outside", Typeflag: tar.TypeReg}},
		"absolute":       {{Name: "/outside", Typeflag: tar.TypeReg}},
		"through a link": {{Name: "link", Linkname: "..", Typeflag: tar.TypeSymlink}, {Name: "link/outside", Typeflag: tar.TypeReg}},
	} {
		var text bytes.Buffer
		w := tar.NewWriter(&text)
		for _, entry := range entries {
			if err := w.WriteHeader(&entry); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		if err := unpackTar(&text, filepath.Join(dir, "tree")); err == nil || !strings.Contains(err.Error(), "outside") {
			t.Errorf("%s: %v", name, err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
			t.Errorf("%s left %v %v", name, left, err)
		}
	}
}
