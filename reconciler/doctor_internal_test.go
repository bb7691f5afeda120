package reconciler

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aristotle/reconciler/labelstudio"
)

// Each judgement that needs no server: what is found, "" for nothing.
func TestJudgements(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	day := 24 * time.Hour
	token := func(issued, expires time.Duration) []Finding {
		return tokenFindings(labelstudio.TokenInfo{Personal: true, Issued: now.Add(issued), Expires: now.Add(expires)}, now)
	}
	clocks := func(readings ...time.Duration) []Finding {
		var all []clockReading
		for i, ahead := range readings {
			all = append(all, clockReading{[]string{"PostgreSQL", "Label Studio"}[i], labelstudio.ClockReading{Ahead: ahead, Within: time.Second}})
		}
		return clockFindings(all)
	}
	few := func(free int, ours bool) []Finding {
		if f, found := fewSlots(free, ours); found {
			return []Finding{f}
		}
		return nil
	}
	for name, c := range map[string]struct {
		got      []Finding
		severity Severity
		want     string
	}{
		"PostgreSQL 14":             {versionFindings(140018), Fatal, "too old"},
		"PostgreSQL 15.1":           {versionFindings(150001), Warning, "bug with column lists"},
		"PostgreSQL 15.2":           {versionFindings(150002), "", ""},
		"PostgreSQL 18":             {versionFindings(180004), "", ""},
		"PostgreSQL 19":             {versionFindings(190000), Warning, "newer than this program"},
		"plain to loopback":         {transportFindings("U", "127.0.0.1", false, false), "", ""},
		"plain to a socket":         {transportFindings("U", "/run/postgresql", false, false), "", ""},
		"plain to another machine":  {transportFindings("U", "db.example.com", false, false), Warning, "not encrypted"},
		"unproven":                  {transportFindings("U", "10.0.0.7", true, false), Warning, "right server"},
		"proven":                    {transportFindings("U", "10.0.0.7", true, true), "", ""},
		"a young token":             {token(-day, 1000*day), "", ""},
		"an old token":              {token(-400*day, 1000*day), Note, "older than a year"},
		"a token that ends":         {token(-day, 20*day), Warning, "ends on 2026-12-14"},
		"a legacy token":            {tokenFindings(labelstudio.TokenInfo{}, now), "", ""},
		"clocks that agree":         {clocks(time.Second, -time.Second), "", ""},
		"a clock that is ahead":     {clocks(0, 90*time.Second), Warning, "Label Studio and this machine"},
		"a clock that is behind":    {clocks(-90 * time.Second), Warning, "PostgreSQL and this machine"},
		"ours is between":           {clocks(-40*time.Second, 40*time.Second), Warning, "Label Studio and PostgreSQL"},
		"two slots free":            {few(2, false), "", ""},
		"one slot free, none ours":  {few(1, false), Fatal, "two are needed"},
		"no slot free beside ours":  {few(0, true), Warning, "no replication slot is free"},
		"one slot free beside ours": {few(1, true), "", ""},
	} {
		switch {
		case c.want == "" && len(c.got) > 0:
			t.Errorf("%s: %+v", name, c.got)
		case c.want != "" && (len(c.got) == 0 || c.got[0].Severity != c.severity || !strings.Contains(c.got[0].What, c.want) || c.got[0].Why == "" || c.got[0].Mend == ""):
			t.Errorf("%s: want a %s with %q, got %+v", name, c.severity, c.want, c.got)
		}
	}
}

func TestOffersStar(t *testing.T) {
	t.Parallel()
	shipped, err := os.ReadFile("../labelstudio/sandbox/label_config.xml")
	if err != nil {
		t.Fatal(err)
	}
	for config, want := range map[string]bool{
		string(shipped): true,
		`<View><Choices name="v" toName="t"><View><Choice value="gold_star"/></View></Choices></View>`:      true,
		`<View><Choices name="v" toName="t"><Choice value="Gold star" alias="gold_star"/></Choices></View>`: true,
		`<View><Choices name="v" toName="t"><Choice value="gold_star" alias="star"/></Choices></View>`:      false,
		`<View><Choices name="v" toName="t"><Choice value="good"/></Choices></View>`:                        false,
		`<View><Header value="gold_star"/><Choice value="gold_star"/></View>`:                               false,
		``: false,
	} {
		if got, err := offersStar(config); err != nil || got != want {
			t.Errorf("%s: %v %v", config, got, err)
		}
	}
	if _, err := offersStar("<View><Choices>"); err == nil {
		t.Error("half a configuration is read")
	}
}
