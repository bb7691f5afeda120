package main

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/robfig/cron/v3"
)

// The kinds of settings. Each reads itself from text; the error says what was expected, and the caller which setting it was.

// redacted is what a secret looks like in logs, errors and dumps.
const redacted = "(redacted)"

// Secret is a text that is never printed; string(s) gives it to the one who needs it.
type Secret string

// String hides the secret from fmt, as the three methods below hide it from others.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// GoString is for %#v.
func (s Secret) GoString() string { return s.String() }

// LogValue is for slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText is for JSON and its like.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText refuses what cannot be sent in a header.
func (s *Secret) UnmarshalText(text []byte) error {
	if strings.ContainsFunc(string(text), func(r rune) bool { return r <= ' ' || r > '~' }) {
		return errors.New("holds a character that no HTTP header can carry (a space or a line break from copying?)")
	}
	*s = Secret(text)
	return nil
}

// DSN says how to reach a PostgreSQL database: a postgres:// URL or "host=… user=…". Printed, it shows role, host and
// database, never the password; string(d) is the whole.
type DSN string

// UnmarshalText checks that the text can be read. The error leaves out what pgconn says, which quotes parts of the text.
func (d *DSN) UnmarshalText(text []byte) error {
	c, err := pgconn.ParseConfig(string(text))
	// Of a URL without its scheme all up to the first = would be a word of "host=… user=…", and the rest its value.
	if err != nil || slices.ContainsFunc(slices.Collect(maps.Keys(c.RuntimeParams)), func(word string) bool { return strings.ContainsAny(word, ":/@?") }) {
		return errors.New("is no PostgreSQL URL, as in postgres://role:password@host:4002/database " +
			"(write special characters of the password as %XX)")
	}
	*d = DSN(text)
	return nil
}

// parts are the connection's settings. The text was checked when it was read.
func (d DSN) parts() (*pgconn.Config, error) { return pgconn.ParseConfig(string(d)) }

// String shows where the connection goes, without the password.
func (d DSN) String() string {
	if d == "" {
		return ""
	}
	c, err := d.parts()
	if err != nil {
		return redacted
	}
	u := url.URL{Scheme: "postgres", User: url.User(c.User), Path: "/" + c.Database,
		Host: net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port)))}
	return u.String()
}

// GoString is for %#v.
func (d DSN) GoString() string { return d.String() }

// LogValue is for slog.
func (d DSN) LogValue() slog.Value { return slog.StringValue(d.String()) }

// MarshalText is for JSON and its like.
func (d DSN) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// BaseURL is an http or https URL without a slash at its end.
type BaseURL string

// UnmarshalText refuses what could not be the beginning of a request's URL.
func (b *BaseURL) UnmarshalText(text []byte) error {
	u, err := url.Parse(string(text))
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return errors.New("is no URL as in http://host:port/prefix")
	case u.User != nil:
		return errors.New("must not hold a user or password: it is shown in logs")
	case u.RawQuery != "" || u.Fragment != "":
		return errors.New("must end with its path, without ? and #")
	}
	*b = BaseURL(strings.TrimRight(u.String(), "/"))
	return nil
}

// Address is where a listener listens: host:port.
type Address string

// UnmarshalText checks the form; port 0 lets the system choose.
func (a *Address) UnmarshalText(text []byte) error {
	_, port, err := net.SplitHostPort(string(text))
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return errors.New("is no address as in 127.0.0.1:4080")
	}
	*a = Address(text)
	return nil
}

// Loopback says whether only this machine reaches the address. A host that is left out is every interface.
func (a Address) Loopback() bool {
	host, _, err := net.SplitHostPort(string(a))
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

// Name is an identifier of ours in PostgreSQL. Nothing that needs quoting: parts of the replication protocol cannot quote, and
// slots allow no more (cdc.md 1.3-b).
type Name string

var validName = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

// UnmarshalText checks the characters and the length.
func (n *Name) UnmarshalText(text []byte) error {
	if !validName.Match(text) {
		return errors.New("is no name of at most 63 of the characters a-z, 0-9 and _")
	}
	*n = Name(text)
	return nil
}

// Schedule says when a pass runs. Times are UTC where the caller asks for Next in UTC.
type Schedule struct {
	cron.Schedule
	text string
}

// UnmarshalText reads a cron expression or a descriptor as robfig/cron does.
func (s *Schedule) UnmarshalText(text []byte) error {
	t := strings.TrimSpace(string(text))
	if strings.Contains(t, "TZ=") && !strings.Contains(t, " ") {
		return errors.New("names a time zone and no time") // the parser would panic
	}
	parsed, err := cron.ParseStandard(t)
	if err != nil {
		return fmt.Errorf("is no cron expression as in %q or \"@every 30s\": %w", "0 3 * * *", err)
	}
	// Any moment serves: Next looks five years ahead, and a leap day is never further than that from 2026.
	if parsed.Next(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return errors.New("is a date that never comes")
	}
	*s = Schedule{parsed, t}
	return nil
}

// String is the text that was set.
func (s Schedule) String() string { return s.text }

// Retention is how long something is kept; 0 is for ever.
type Retention time.Duration

// UnmarshalText accepts days, durations of at least an hour, and "forever".
func (r *Retention) UnmarshalText(text []byte) error {
	if string(text) == "forever" {
		*r = 0
		return nil
	}
	var d time.Duration
	days, isDays := strings.CutSuffix(string(text), "d")
	n, err := strconv.ParseUint(days, 10, 16)
	if d = time.Duration(n) * 24 * time.Hour; !isDays {
		d, err = time.ParseDuration(string(text))
	}
	if err != nil || d < time.Hour {
		return errors.New("is no time of at least an hour as in 90d or 36h, nor forever")
	}
	*r = Retention(d)
	return nil
}

// String is the time as a duration.
func (r Retention) String() string { return time.Duration(r).String() }

// Initial is what first contact does where the sides differ.
type Initial string

// UnmarshalText accepts the four words of the contract.
func (i *Initial) UnmarshalText(text []byte) error {
	return oneOf((*string)(i), text, "union", "aristotle", "labelstudio", "hold")
}

// LogFormat is text or json.
type LogFormat string

// UnmarshalText accepts text and json.
func (f *LogFormat) UnmarshalText(text []byte) error {
	return oneOf((*string)(f), text, "text", "json")
}

func oneOf(into *string, text []byte, words ...string) error {
	for _, w := range words {
		if w == string(text) {
			*into = w
			return nil
		}
	}
	return fmt.Errorf("must be one of %s", strings.Join(words, ", "))
}

// Count is a number of keys.
type Count int

// UnmarshalText accepts 0 and up.
func (c *Count) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 10, 31)
	if err != nil {
		return errors.New("is no whole number of at least 0")
	}
	*c = Count(n)
	return nil
}

// Bytes is an amount of memory.
type Bytes int64

// UnmarshalText reads a number with a unit of 1,024s, or without one.
func (b *Bytes) UnmarshalText(text []byte) error {
	number, unit := strings.TrimRight(string(text), "KMGTiB"), int64(1)
	switch strings.TrimPrefix(string(text), number) {
	case "", "B":
	case "KiB":
		unit = 1 << 10
	case "MiB":
		unit = 1 << 20
	case "GiB":
		unit = 1 << 30
	default:
		number = ""
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/unit {
		return errors.New("is no amount of memory as in 512MiB or 2GiB")
	}
	*b = Bytes(int64(n) * unit)
	return nil
}

// Share is a part of a whole, 0 to 1.
type Share float64

// UnmarshalText accepts 0 to 1.
func (s *Share) UnmarshalText(text []byte) error {
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil || !(f >= 0 && f <= 1) { // not "f < 0 || f > 1": NaN must fail
		return errors.New("is no number from 0 to 1")
	}
	*s = Share(f)
	return nil
}

// UnmarshalText reads ids with commas between them; "all" and nothing mean all.
func (p *ProjectIDs) UnmarshalText(text []byte) error {
	*p = nil
	if t := string(text); t == "all" || t == "" {
		return nil
	}
	for field := range strings.SplitSeq(string(text), ",") {
		id, err := strconv.ParseInt(strings.TrimSpace(field), 10, 64)
		if err != nil || id < 1 {
			return fmt.Errorf("%q is no project id: numbers with commas between them, or all", strings.TrimSpace(field))
		}
		*p = append(*p, id)
	}
	return nil
}

// UnmarshalText reads networks and single addresses with commas between them.
func (n *Networks) UnmarshalText(text []byte) error {
	*n = nil
	if len(text) == 0 {
		return nil
	}
	for field := range strings.SplitSeq(string(text), ",") {
		field = strings.TrimSpace(field)
		prefix, err := netip.ParsePrefix(field)
		if ip, ipErr := netip.ParseAddr(field); ipErr == nil {
			prefix, err = netip.PrefixFrom(ip, ip.BitLen()), nil
		}
		if err != nil {
			return fmt.Errorf("%q is no network as in 10.0.0.0/8", field)
		}
		*n = append(*n, prefix.Masked())
	}
	return nil
}
