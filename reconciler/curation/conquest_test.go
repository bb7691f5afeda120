package curation

import (
	"encoding/json"
	"html"
	"net/http/httptest"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/aristotle/reconciler/reconciler/icl"
)

var shownText = regexp.MustCompile(`(?s)<div class="text[^>]*>(.*?)</div>`)

// A page shows the texts that the conquest's example is made of, wherever they are stored.
func TestShownIsServed(t *testing.T) {
	t.Parallel()
	const talk = `[{"role":"system","content":"talk s"},{"role":"user","content":"talk <1>"},{"role":"assistant","content":"talk 2"},{"role":"user","content":"talk 3"}]`
	a := newApp(t, 0, func(*Options) {},
		`INSERT INTO "Conquest" (id, philosopher, domain, result, "conquestType") SELECT k, 'p', 'd', 'VICTORY', 'T' FROM unnest('{rows,two,starred,talk,none}'::text[]) k`,
		`INSERT INTO ml_analysis_rating (id, conquest_analysis_id, analysis_type, is_gold_star, philosopher, domain, label_studio_task_id)
			SELECT id, id, 'conquest_analysis', true, 'p', 'd', CASE id WHEN 'starred' THEN 4 END FROM "Conquest"`,
		`INSERT INTO reconciler.edge (task_id, key, project, begun) VALUES (1, 'rows', 1, 'union'), (3, 'starred', 1, 'union'), (4, 'starred', 1, 'union'), (5, 'talk', 1, 'union')`,
		`INSERT INTO reconciler.task_text (task_id, key, hash, prompt, messages, response, system) VALUES (1, 'rows', '', NULL, '`+talk+`', 'task r', NULL),
			(3, 'starred', '', 'lowest p', NULL, 'lowest r', 'lowest s'), (4, 'starred', '', 'starred p', NULL, 'starred r', 'starred s'), (5, 'talk', '', NULL, '`+talk+`', 'talk r', NULL)`,
		`INSERT INTO conquest_prompt VALUES ('1', 'rows', '{"prompt": "row p", "system_prompt": "row s"}'), ('2', 'two', '{"prompt": " "}'), ('3', 'two', '{"prompt": "first p"}'), ('4', 'two', '{"prompt": "last p"}')`,
		`INSERT INTO conquest_response VALUES ('1', 'rows', '{"response": " "}'), ('3', 'two', '{"response": "first r"}'), ('4', 'two', '{"response": "last r"}')`)
	s := httptest.NewServer(a.routes())
	t.Cleanup(s.Close)
	served, err := a.Examples.Examples(t.Context(), icl.Query{Philosopher: "p", Domain: "d", Limit: 100})
	if err != nil || len(served.Examples) != 4 {
		t.Fatalf("%d examples, %v", len(served.Examples), err)
	}
	for _, e := range served.Examples {
		var want, shown []string
		var chat struct{ Messages []icl.Message }
		if err := json.Unmarshal(e.Append(nil, icl.ChatML), &chat); err != nil {
			t.Fatal(err)
		}
		for _, m := range chat.Messages {
			if m.Content != "You are an expert t analyst." { // made up: none is stored
				want = append(want, m.Content)
			}
		}
		for _, m := range shownText.FindAllStringSubmatch(get(t, s.URL+"/conquests/"+e.Key), -1) {
			shown = append(shown, html.UnescapeString(m[1]))
		}
		if diff := cmp.Diff(want, shown); diff != "" {
			t.Errorf("%s (-example +page):\n%s", e.Key, diff)
		}
	}
	if shown := shownText.FindAllString(get(t, s.URL+"/conquests/none"), -1); shown != nil {
		t.Errorf("of nothing it shows %q", shown)
	}
}
