package sandbox

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Conquest is one row of "Conquest" with the two texts that some installations keep beside it. Empty texts and zero times are
// NULL in the database.
type Conquest struct {
	ID, AristotleID                string
	Type                           string // "conquestType"
	Title, Description             string
	Result                         string // PENDING, VICTORY, DEFEAT or NEUTRAL
	ResultNotes                    string
	UseAsExample                   bool
	EvaluatedBy                    string    // e-mail
	EvaluatedAt                    time.Time // UTC
	Status                         string
	Philosopher                    string // the owner's e-mail
	Domain                         string // the owner's organisation
	CreatedAt, UpdatedAt           time.Time
	Prompt, Response, SystemPrompt string
}

// samples has a conquest a line, fields separated by "|": type, philosopher, domain, status, result, title, description, what the
// prompt asks, what the response finds, its recommendation.
//
//go:embed sample.txt
var samples string

// SampleConquests gives some forty conquests of three organisations that read like real work: a few are evaluated (VICTORY, DEFEAT or
// NEUTRAL), most are PENDING. Every call gives the same ones, with the same ids and times.
func SampleConquests() []Conquest {
	var all []Conquest
	at := time.Date(2025, time.October, 6, 8, 40, 0, 0, time.UTC)
	for line := range strings.Lines(samples) {
		f := strings.Split(strings.TrimSpace(line), "|")
		sum := sha256.Sum256([]byte(f[5]))
		c := Conquest{
			ID:          fmt.Sprintf("conquest_%x", sum[:6]),
			AristotleID: fmt.Sprintf("ari_%x", sum[6:10]),
			Type:        f[0],
			Philosopher: f[1],
			Domain:      f[2],
			Status:      f[3],
			Result:      f[4],
			Title:       f[5],
			Description: f[6],
			Prompt:      fmt.Sprintf("%s\n\nBackground: %s\n\n%s", f[5], f[6], f[7]),
			Response:    fmt.Sprintf("Finding. %s\n\nRecommendation. %s", f[8], f[9]),
			SystemPrompt: fmt.Sprintf("You are an expert %s analyst. Be specific, name what you could not verify, and end with one recommendation.",
				strings.ToLower(strings.ReplaceAll(f[0], "_", " "))),
			CreatedAt: at,
			UpdatedAt: at.Add(95 * time.Minute),
		}
		if c.Result != "PENDING" {
			c.EvaluatedBy = c.Philosopher
			c.EvaluatedAt = at.Add(26 * time.Hour)
			c.UpdatedAt = c.EvaluatedAt
			c.UseAsExample = c.Result == "VICTORY"
		}
		if c.Result == "VICTORY" {
			c.ResultNotes = "Used as written; the recommendation was followed."
		}
		all = append(all, c)
		at = at.Add(7*time.Hour + 13*time.Minute)
	}
	return all
}

// Load inserts conquests into a database that [Server.CreateDatabase] made, in one transaction, and their texts where the database has the
// tables for them.
func Load(ctx context.Context, url string, conquests []Conquest) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("load conquests: %w", err)
	}
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		var texts bool
		if err := tx.QueryRow(ctx, "SELECT to_regclass('conquest_prompt') IS NOT NULL").Scan(&texts); err != nil {
			return err
		}
		var batch pgx.Batch
		for _, c := range conquests {
			c.queue(&batch)
			if texts {
				c.queueTexts(&batch)
			}
		}
		return tx.SendBatch(ctx, &batch).Close()
	})
	if err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))); err != nil {
		return fmt.Errorf("load conquests: %w", err)
	}
	return nil
}

// queue adds the row. The three columns that may be enums are sent as text: pgx knows no enum of ours, and the server casts it.
func (c Conquest) queue(batch *pgx.Batch) {
	batch.Queue(`INSERT INTO "Conquest" (id, "aristotleId", "conquestType", title, description, result, "resultNotes", "useAsExample",
			"evaluatedBy", "evaluatedAt", status, philosopher, domain, "createdAt", "updatedAt")
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)`,
		c.ID, null(c.AristotleID), null(c.Type), null(c.Title), null(c.Description), null(c.Result), null(c.ResultNotes), c.UseAsExample,
		null(c.EvaluatedBy), null(c.EvaluatedAt), null(c.Status), c.Philosopher, c.Domain, null(c.CreatedAt), null(c.UpdatedAt))
}

func (c Conquest) queueTexts(batch *pgx.Batch) {
	if c.Prompt != "" {
		batch.Queue(`INSERT INTO conquest_prompt (id, conquest_analysis_id, data)
			VALUES ($1, $2, jsonb_strip_nulls(jsonb_build_object('prompt', $3::text, 'system_prompt', $4::text)))`,
			"prompt_"+c.ID, c.ID, c.Prompt, null(c.SystemPrompt))
	}
	if c.Response != "" {
		batch.Queue(`INSERT INTO conquest_response (id, conquest_analysis_id, data)
			VALUES ($1, $2, jsonb_build_object('response', $3::text))`, "response_"+c.ID, c.ID, c.Response)
	}
}

func null[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}
