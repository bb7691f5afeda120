package reconciler

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/aristotle/reconciler/labelstudio"
	"github.com/aristotle/reconciler/reconciler/ledger"
)

// testedStudio is the Label Studio that this program is tested with.
const testedStudio = "1.23.2"

// What a token's age is worth a word for.
const (
	oldToken  = 365 * 24 * time.Hour
	endsSoon  = 30 * 24 * time.Hour
	dayLength = 24 * time.Hour
)

func (v *visit) labelStudio(ctx context.Context) (fact string, findings []Finding, err error) {
	if v.Studio == nil {
		return "left out: LABEL_STUDIO_API_KEY is not set", nil, nil
	}
	user, err := v.Studio.Whoami(ctx)
	if labelstudio.IsAuth(err) {
		return "", []Finding{{Fatal, "Label Studio refuses LABEL_STUDIO_API_KEY: " + err.Error(), "No task can be read.",
			"Make a new token in Label Studio under Account & Settings, and set LABEL_STUDIO_API_KEY."}}, nil
	}
	if err != nil {
		return "", nil, err
	}
	version, err := v.Studio.Version(ctx)
	if err != nil {
		return "", nil, err
	}
	v.reach("label studio")
	if version != testedStudio {
		f := Finding{Note, "Label Studio is " + version + "; this program was tested with " + testedStudio, "Other versions may answer otherwise.", "Nothing, if all works; reconciler diff tells."}
		if !strings.HasPrefix(version, testedStudio[:strings.LastIndex(testedStudio, ".")+1]) {
			f.Severity, f.Mend = Warning, "Install Label Studio "+testedStudio+", or look for a newer version of reconciler."
		}
		findings = append(findings, f)
	}
	token := v.Studio.Token()
	return fmt.Sprintf("%s, as %s, by a %s", version, user.Email, describeToken(token, time.Now())), append(findings, tokenFindings(token, time.Now())...), nil
}

func describeToken(t labelstudio.TokenInfo, now time.Time) string {
	if !t.Personal {
		return "legacy token, which tells no age"
	}
	if t.Issued.IsZero() {
		return "personal access token"
	}
	return fmt.Sprintf("personal access token of %s, %d days old", t.Issued.UTC().Format(time.DateOnly), int(now.Sub(t.Issued)/dayLength))
}

func tokenFindings(t labelstudio.TokenInfo, now time.Time) []Finding {
	const mend = "Make a new token in Label Studio under Account & Settings and set LABEL_STUDIO_API_KEY; given by LABEL_STUDIO_API_KEY_FILE it needs no restart."
	switch {
	case !t.Expires.IsZero() && t.Expires.Sub(now) < endsSoon:
		return []Finding{{Warning, "the personal access token ends on " + t.Expires.UTC().Format(time.DateOnly), "From then on no task can be read.", mend}}
	case !t.Issued.IsZero() && now.Sub(t.Issued) > oldToken:
		return []Finding{{Note, "the personal access token is older than a year", "Whoever has seen it since can still use it.", mend}}
	}
	return nil
}

// projects finds those that were configured and are not there, and those in which nobody can star.
func (v *visit) projects(ctx context.Context) (fact string, findings []Finding, err error) {
	all, err := v.Studio.LabelConfigs(ctx)
	if err != nil {
		return "", nil, err
	}
	v.reach("projects")
	if len(all) == 0 {
		return "", []Finding{{Warning, "the token's user sees no project", "There is nothing to sync.", "Make a project, or give the token of a member of the organization that has them."}}, nil
	}
	for _, id := range v.Projects {
		if !slices.ContainsFunc(all, func(p labelstudio.Project) bool { return p.ID == id }) {
			findings = append(findings, missingProject(id))
		}
	}
	tasks := 0
	for _, p := range all {
		if len(v.Projects) > 0 && !slices.Contains(v.Projects, p.ID) {
			continue
		}
		v.synced = append(v.synced, p)
		tasks += p.TaskNumber
		stars, err := offersStar(p.LabelConfig)
		if err != nil || !stars {
			findings = append(findings, Finding{Warning, fmt.Sprintf("project %d (%s) offers no choice gold_star", p.ID, p.Title), "Nobody can star there in Label Studio's interface.",
				fmt.Sprintf(`In Label Studio under /projects/%d/settings/labeling add to the configuration: <Choices name="verdict" toName="…" choice="multiple"><Choice value="gold_star"/></Choices>`, p.ID)})
		}
	}
	return fmt.Sprintf("%d with %d tasks", len(v.synced), tasks), findings, nil
}

// studioDatabase finds what keeps passes from Label Studio's own database, and a role there that may do more than they do.
func (v *visit) studioDatabase(ctx context.Context) (fact string, findings []Finding, err error) {
	const setting = "LABEL_STUDIO_DATABASE_URL"
	if v.StudioDatabase == "" {
		return "left out: " + setting + " is not set", nil, nil
	}
	db, err := labelstudio.OpenDatabase(ctx, v.StudioDatabase)
	if err != nil {
		return "", nil, err
	}
	defer db.Close()
	if err := db.Check(ctx); labelstudio.Mendable(err) {
		return "", []Finding{{Fatal, setting + ": " + serverWords(err), "Passes cannot read there.",
			"Correct " + setting + "; its role needs GRANT SELECT ON task, task_completion. Or leave it out: passes then read through the API."}}, nil
	} else if err != nil {
		return "", nil, fmt.Errorf("%s: %w", setting, err)
	}
	role, writes, err := db.Role(ctx)
	if err != nil {
		return "", nil, err
	}
	if writes {
		findings = append(findings, Finding{Warning, fmt.Sprintf("%s: role %q may write to Label Studio's tables", setting, role),
			"Passes only read there: whoever has seen the URL can change every task.",
			"CREATE ROLE reader LOGIN PASSWORD '…'; GRANT SELECT ON task, task_completion TO reader; and name that role in " + setting + "."})
	}
	return fmt.Sprintf("as role %q", role), findings, nil
}

func missingProject(id int64) Finding {
	return Finding{Warning, fmt.Sprintf("project %d of LABEL_STUDIO_PROJECTS does not exist, or the token's user does not see it", id), "Its tasks are not synced.",
		"Correct LABEL_STUDIO_PROJECTS, or give the token's user the project."}
}

// MissingProjects says which configured projects are not among those that there are.
func MissingProjects(configured []int64, all []labelstudio.Project) (reasons []string) {
	for _, id := range configured {
		if !slices.ContainsFunc(all, func(p labelstudio.Project) bool { return p.ID == id }) {
			reasons = append(reasons, missingProject(id).What)
		}
	}
	return reasons
}

// offersStar looks for a choice gold_star in a labeling configuration. One that is no XML is an error.
func offersStar(config string) (bool, error) {
	inside := 0
	for d := xml.NewDecoder(strings.NewReader(config)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("read the labeling configuration: %w", err)
		}
		switch e := token.(type) {
		case xml.StartElement:
			switch e.Name.Local {
			case "Choices":
				inside++
			case "Choice":
				if inside > 0 && choiceValue(e) == ledger.GoldChoice {
					return true, nil
				}
			}
		case xml.EndElement:
			if e.Name.Local == "Choices" {
				inside--
			}
		}
	}
}

// choiceValue is what an annotation holds where the choice was made: its alias, where it has one.
func choiceValue(e xml.StartElement) (value string) {
	for _, a := range e.Attr {
		switch a.Name.Local {
		case "alias":
			return a.Value
		case "value":
			value = a.Value
		}
	}
	return value
}

// muchSkew is how far two clocks may be apart. The daemon decides nothing by ours, but its first pass over a project relies on less than
// [skew], and people compare the times that it writes.
const muchSkew = time.Minute

func (v *visit) clocks(ctx context.Context) (fact string, findings []Finding, err error) {
	asked := time.Now()
	var theirs time.Time
	if err := v.db.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&theirs); err != nil {
		return "", nil, fmt.Errorf("ask for the time: %w", err)
	}
	took := time.Since(asked)
	readings := []clockReading{{"PostgreSQL", labelstudio.ClockReading{Ahead: theirs.Sub(asked.Add(took / 2)), Within: took}}}
	if v.Studio != nil {
		if r, known := v.Studio.Clock(); known {
			readings = append(readings, clockReading{"Label Studio", r})
		}
	}
	var facts []string
	for _, r := range readings {
		facts = append(facts, fmt.Sprintf("%s %+v", r.whose, r.Ahead.Round(100*time.Millisecond)))
	}
	return strings.Join(facts, ", "), clockFindings(readings), nil
}

// clockReading is another machine's clock, against ours.
type clockReading struct {
	whose string
	labelstudio.ClockReading
}

func clockFindings(readings []clockReading) (findings []Finding) {
	for i, a := range readings {
		for _, b := range append([]clockReading{{whose: "this machine"}}, readings[:i]...) {
			apart := (a.Ahead - b.Ahead).Abs()
			if apart-a.Within-b.Within > muchSkew {
				findings = append(findings, Finding{Warning, fmt.Sprintf("the clocks of %s and %s are %v apart", a.whose, b.whose, apart.Round(time.Second)),
					"Times of stars and verdicts cannot be compared, and a first pass may leave out what changed meanwhile.", "Let all machines follow a time server: timedatectl set-ntp true"})
			}
		}
	}
	return findings
}
