package labelstudio

import (
	"fmt"
	"strings"
	"testing"
)

// BenchmarkListing decodes a page of a full scan: 1,000 tasks of 2.5 kB, a tenth annotated.
func BenchmarkListing(b *testing.B) {
	var rows []string
	for i := range 1000 {
		notes := "[]"
		if i%10 == 0 {
			notes = `[{"id": 7, "result": [{"type": "choices", "from_name": "verdict", "value": {"choices": ["gold_star"]}}], "completed_by": 1, "was_cancelled": false, "updated_at": "2026-11-23T09:29:11.702691Z"}]`
		}
		rows = append(rows, fmt.Sprintf(`{"id": %d, "project": 1, "meta": {"gold_star": true}, "data": {"conquest_id": "c%d", "prompt": %q}, "created_at": "2026-11-23T09:29:07.788134Z", "updated_at": "2026-11-23T09:29:11.702691Z", "annotations": %s}`, i+1, i, strings.Repeat("word ", 480), notes))
	}
	body := []byte(`{"total": 1000, "tasks": [` + strings.Join(rows, ",") + `]}`)
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if got, err := decodeListing(body); err != nil || len(got.Tasks) != 1000 {
			b.Fatal(len(got.Tasks), err)
		}
	}
}
