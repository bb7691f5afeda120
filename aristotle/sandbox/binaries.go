package sandbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"

	embedded "github.com/fergusstrange/embedded-postgres"
)

// DefaultVersion is what Start runs when neither [Options] nor RECONCILER_SANDBOX_VERSION says otherwise: the newest line but
// one, and the first that has failover slots.
const DefaultVersion = "17.10.0"

// Versions are the PostgreSQL versions that the project is tested with, one for each supported major, oldest first.
func Versions() []string {
	return []string{"15.18.0", "16.9.0", "17.10.0", "18.4.0"}
}

// ErrUnavailable marks a machine that cannot get PostgreSQL: no download, or no build for its platform. The error that wraps
// it says why and what to do.
var ErrUnavailable = errors.New("no PostgreSQL for the sandbox: " +
	"set RECONCILER_SANDBOX_POSTGRES to the prefix folder of an installed one, or RECONCILER_SANDBOX_CACHE to a filled cache")

// pins has the SHA-256 of each archive by platform and version, as published beside it when the version was added here (17.10.0 for
// arm64, where none is published: as downloaded then). 14.18.0 and 15.18.0 are not built for arm64.
var pins = map[string]string{
	"linux-amd64 14.18.0":    "d08a4c4703faf3f78ed74af72f1794d32ad3798f7dedf46abd383f809a99262b",
	"linux-amd64 15.18.0":    "6490649298abbe834a969b57df53e66e056f76894054a8f32f7a56f33abe0087",
	"linux-amd64 16.9.0":     "d983cee24678490199e1684d6a93f49f84673696cb6f0db64e880a4cf233017b",
	"linux-amd64 17.10.0":    "a6c44794a7a258621b8cb98c196bf621cdd705d9fa73c3628166b658c419877a",
	"linux-amd64 18.4.0":     "401d4e69baba9072d3772607710df0d47b39a7632c6b01b2a5f5d85a9514e212",
	"linux-arm64v8 16.9.0":   "9d113402f70f4d134250916319ad83e87cba3796bd73a606c28dbabd326b4fa3",
	"linux-arm64v8 18.4.0":   "a9ec284923b9a7d2db41509bfb88c3d0eeb9f4aa5e2b29ea0aac5e8dbaf4c335",
	"darwin-arm64v8 16.9.0":  "53b2672c602e16e4c94fb56b9aa68cc26a0bbb0df851f256f41a2cdbeccc9cb6",
	"darwin-arm64v8 18.4.0":  "ab698c4486a795d2aa8a158b3a41e1201a77e7ff72a6255094cd5900080853c2",
	"darwin-amd64 14.18.0":   "0e4764346ad227223e7ea0d679e508067e5809cf640a5146c1d3d701db90941c",
	"darwin-amd64 15.18.0":   "bf4ca4521474ab0ef31672de5e48f194a423770f1f668b0356bb69e166253707",
	"darwin-amd64 16.9.0":    "0be7111599308e8a670ae72e9512a4b902dabe3e2e0cda0539a0447a5bdacb26",
	"darwin-amd64 17.10.0":   "667a0eea70157656649417777af452148f6c79ae3654b2cd057a37fd701bd9e9",
	"darwin-amd64 18.4.0":    "68381ed1488edd337345c6c4bc6ae0c823832a4dd7af8b04656ee5c218c291b5",
	"linux-arm64v8 17.10.0":  "47aa73724470a8bdb5e68e3978c1f07c577ab7a5c23b97b84f99d7e165f4876f",
	"darwin-arm64v8 17.10.0": "b8c73288326af937b632208110b1d629c404ebef7519f8bcc7fd72404c68a36a",
}

// resolveVersion turns what a person says ("", "15", "15.18.0") into an exact version.
func resolveVersion(version string) (string, error) {
	version = cmp.Or(version, os.Getenv("RECONCILER_SANDBOX_VERSION"), DefaultVersion)
	if strings.Count(version, ".") == 2 {
		return version, nil
	}
	for _, exact := range Versions() {
		if version == major(exact) {
			return exact, nil
		}
	}
	return "", fmt.Errorf("PostgreSQL version %q: want a major or an exact version like one of %s", version, strings.Join(Versions(), ", "))
}

func major(version string) string {
	m, _, _ := strings.Cut(version, ".")
	return m
}

// binaries gives the prefix folder of a PostgreSQL that is ready to run, fetching it where that must be.
func binaries(ctx context.Context, version, cache string, log func(string)) (prefix string, err error) {
	exact, err := resolveVersion(version)
	if err != nil {
		return "", err
	}
	if prefix := os.Getenv("RECONCILER_SANDBOX_POSTGRES"); prefix != "" {
		return prefix, checkInstalled(ctx, prefix, cmp.Or(version, os.Getenv("RECONCILER_SANDBOX_VERSION")))
	}
	platform, err := platform()
	if err != nil {
		return "", err
	}
	prefix = filepath.Join(cache, "postgresql-"+exact+"-"+platform)
	if isDir(prefix) {
		return prefix, nil
	}
	// Test processes start together: one downloads, the others wait and then find it.
	unlock, err := lockFile(ctx, prefix+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if isDir(prefix) {
		return prefix, nil
	}
	source := archive{url: archiveURL(platform, exact), sha256: pins[platform+" "+exact]}
	if source.sha256 == "" {
		log(fmt.Sprintf("PostgreSQL %s for %s: no checksum is pinned in this program, only the one published beside the archive is compared", exact, platform))
	}
	if err := source.install(ctx, prefix, func(size int64) {
		log(fmt.Sprintf("PostgreSQL %s: downloading %.1f MB from the Maven repository into %s, once", exact, float64(size)/1e6, cache))
	}); err != nil {
		return "", fmt.Errorf("fetch PostgreSQL %s: %w", exact, err)
	}
	return prefix, nil
}

// checkInstalled refuses an installed PostgreSQL of another major than the one that was asked for by name: a test of a major
// must never pass on a different one.
func checkInstalled(ctx context.Context, prefix, wanted string) error {
	out, err := exec.CommandContext(ctx, filepath.Join(prefix, "bin", "postgres"), "--version").Output()
	if err != nil {
		return fmt.Errorf("ask the PostgreSQL of RECONCILER_SANDBOX_POSTGRES for its version: %w", err)
	}
	fields := strings.Fields(string(out)) // postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)
	if len(fields) < 3 {
		return fmt.Errorf("%s/bin/postgres --version says %q", prefix, out)
	}
	if wanted != "" && major(fields[2]) != major(wanted) {
		return fmt.Errorf("RECONCILER_SANDBOX_POSTGRES has PostgreSQL %s, asked for is %s: unset one of them", fields[2], wanted)
	}
	return nil
}

// platform names this machine the way the archives do.
func platform() (string, error) {
	if _, err := os.Stat("/etc/alpine-release"); err == nil {
		return "", fmt.Errorf("the archives are not for Alpine's C library: %w", ErrUnavailable)
	}
	switch runtime.GOOS + "/" + runtime.GOARCH {
	case "linux/amd64", "darwin/amd64":
		return runtime.GOOS + "-amd64", nil
	case "linux/arm64", "darwin/arm64":
		return runtime.GOOS + "-arm64v8", nil
	}
	return "", fmt.Errorf("%s/%s has no archive: %w", runtime.GOOS, runtime.GOARCH, ErrUnavailable)
}

// archiveURL is where the archive is. The repository is the one that the embedded-postgres library is made for; it keeps the
// address in an unexported field. We go there ourselves, since the library runs what it fetched without a pinned checksum.
func archiveURL(platform, version string) string {
	repository := reflect.ValueOf(embedded.DefaultConfig()).FieldByName("binaryRepositoryURL").String()
	name := "embedded-postgres-binaries-" + platform
	return fmt.Sprintf("%s/io/zonky/test/postgres/%s/%s/%s-%s.jar", repository, name, version, name, version)
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
