package labelstudio

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Annotation is what one person said about a task.
type Annotation struct {
	ID           int64
	Task         int64    // 0 where the answer does not say, as inside a listing
	Result       []Region // what was said; empty for null and for none
	WasCancelled bool     // skipped
	GroundTruth  bool
	CompletedBy  UserRef
	UpdatedBy    UserRef
	CreatedAt    time.Time
	UpdatedAt    time.Time
}

// Region is one part of an annotation's result: one control of the label configuration and what was entered there.
type Region struct {
	ID       string          `json:"id,omitempty"`
	Type     string          `json:"type"`                // "choices", "textarea", …
	FromName string          `json:"from_name,omitempty"` // the control's name
	ToName   string          `json:"to_name,omitempty"`   // the name of what it is about
	Origin   string          `json:"origin,omitempty"`    // "manual"
	Value    json.RawMessage `json:"value,omitempty"`     // an object that has the type's name, or another, as its key
	Meta     json.RawMessage `json:"meta,omitempty"`      // an object with what is said about the region; Label Studio keeps any key
}

// UserRef names a user, by number, by e-mail or both: it depends on the request which of them Label Studio tells.
type UserRef struct {
	ID    int64
	Email string
}

// AnnotationEdit is what is sent for an annotation. Update replaces the whole result, so send back what is to stay; region keys
// that [Region] does not have are then lost.
type AnnotationEdit struct {
	Result       []Region `json:"result"`
	WasCancelled *bool    `json:"was_cancelled,omitempty"`
	GroundTruth  *bool    `json:"ground_truth,omitempty"` // true takes it from the task's other annotations
	CompletedBy  int64    `json:"completed_by,omitempty"` // 0: the token's user (create), unchanged (update)
}

// Choices returns the chosen texts of a "choices" region; none for other types, and none for choices that are no texts (trees).
func (r Region) Choices() []string { return r.texts("choices", "choices") }

// Text returns the entered texts of a "textarea" region; none for other types.
func (r Region) Text() []string { return r.texts("textarea", "text") }

// Chose tells whether one of the annotation's "choices" regions has a choice.
func (a *Annotation) Chose(choice string) bool {
	return slices.ContainsFunc(a.Result, func(r Region) bool {
		// Most have not, and need not be taken apart. A backslash may hide it.
		return (bytes.Contains(r.Value, []byte(choice)) || bytes.IndexByte(r.Value, '\\') >= 0) && slices.Contains(r.Choices(), choice)
	})
}

// Entered returns what was entered into a TextArea control, a line each text; "" for a cancelled annotation.
func (a *Annotation) Entered(control string) string {
	if a.WasCancelled {
		return ""
	}
	var all []string
	for _, r := range a.Result {
		if r.FromName == control {
			all = append(all, r.Text()...)
		}
	}
	return strings.Join(all, "\n")
}

func (r Region) texts(kind, key string) []string {
	var value map[string]json.RawMessage
	if r.Type != kind || json.Unmarshal(r.Value, &value) != nil {
		return nil
	}
	var one string
	var many []any
	if raw := value[key]; json.Unmarshal(raw, &many) != nil {
		if json.Unmarshal(raw, &one) == nil && string(raw) != "null" {
			return []string{one} // older exports have a bare text
		}
		return nil
	}
	var texts []string
	for _, v := range many {
		if text, ok := v.(string); ok {
			texts = append(texts, text)
		}
	}
	return texts
}

// ChoicesRegion makes the region of a Choices control.
func ChoicesRegion(fromName, toName string, choices ...string) (Region, error) {
	return newRegion("choices", "choices", fromName, toName, choices)
}

// TextRegion makes the region of a TextArea control.
func TextRegion(fromName, toName string, texts ...string) (Region, error) {
	return newRegion("textarea", "text", fromName, toName, texts)
}

func newRegion(kind, key, fromName, toName string, texts []string) (Region, error) {
	if texts == nil {
		texts = []string{}
	}
	value, err := json.Marshal(map[string][]string{key: texts})
	if err != nil {
		return Region{}, fmt.Errorf("encode the %s of %s: %w", kind, fromName, err)
	}
	return Region{ID: fromName, Type: kind, FromName: fromName, ToName: toName, Origin: "manual", Value: value}, nil
}

// CreateAnnotation submits an annotation of a task. Label Studio calls the project's webhooks before it answers.
func (c *Client) CreateAnnotation(ctx context.Context, task int64, a AnnotationEdit) (*Annotation, error) {
	path := "/api/tasks/" + strconv.FormatInt(task, 10) + "/annotations/"
	out, err := c.sendAnnotation(ctx, OpAnnotationCreate, http.MethodPost, path, a)
	if err != nil {
		return nil, fmt.Errorf("annotate task %d: %w", task, err)
	}
	return out, nil
}

// UpdateAnnotation changes an annotation. Label Studio saves the whole task with it, its meta included, as it was when it began.
func (c *Client) UpdateAnnotation(ctx context.Context, id int64, a AnnotationEdit) (*Annotation, error) {
	out, err := c.sendAnnotation(ctx, OpAnnotationUpdate, http.MethodPatch, "/api/annotations/"+strconv.FormatInt(id, 10)+"/", a)
	if err != nil {
		return nil, fmt.Errorf("update annotation %d: %w", id, err)
	}
	return out, nil
}

func (c *Client) sendAnnotation(ctx context.Context, op Operation, method, path string, a AnnotationEdit) (*Annotation, error) {
	if a.Result == nil {
		a.Result = []Region{} // null is stored as null, which older readers trip over
	}
	body, err := json.Marshal(a)
	if err != nil {
		return nil, notSent(op, err)
	}
	answer, err := c.do(ctx, call{op: op, method: method, path: path, body: body, maxBody: maxTaskBody, inTurn: true})
	if err != nil {
		return nil, err
	}
	var out Annotation
	if err := json.Unmarshal(answer, &out); err != nil {
		return nil, undecodable(op, err)
	}
	return &out, nil
}

// DeleteAnnotation deletes an annotation.
func (c *Client) DeleteAnnotation(ctx context.Context, id int64) error {
	_, err := c.do(ctx, call{op: OpAnnotationDelete, method: http.MethodDelete, path: "/api/annotations/" + strconv.FormatInt(id, 10) + "/", maxBody: maxSmallBody, inTurn: true})
	if err != nil {
		return fmt.Errorf("delete annotation %d: %w", id, err)
	}
	return nil
}

// UnmarshalJSON reads an annotation as any answer or webhook has it. Its id and result must be there: an annotation whose result was left
// out of the answer is not one that says nothing.
func (a *Annotation) UnmarshalJSON(text []byte) error {
	var wire struct {
		ID           int64     `json:"id"`
		Task         int64     `json:"task"`
		Result       *regions  `json:"result"`
		WasCancelled bool      `json:"was_cancelled"`
		GroundTruth  bool      `json:"ground_truth"`
		CompletedBy  UserRef   `json:"completed_by"`
		UpdatedBy    UserRef   `json:"updated_by"`
		CreatedAt    time.Time `json:"created_at"`
		UpdatedAt    time.Time `json:"updated_at"`
	}
	wire.Result = &regions{absent: true}
	if err := json.Unmarshal(text, &wire); err != nil {
		return err
	}
	if wire.ID == 0 {
		return errors.New("an annotation without an id")
	}
	if wire.Result != nil && wire.Result.absent {
		return fmt.Errorf("annotation %d without its result", wire.ID)
	}
	*a = Annotation{
		ID: wire.ID, Task: wire.Task, WasCancelled: wire.WasCancelled, GroundTruth: wire.GroundTruth,
		CompletedBy: wire.CompletedBy, UpdatedBy: wire.UpdatedBy, CreatedAt: wire.CreatedAt, UpdatedAt: wire.UpdatedAt,
	}
	if wire.Result != nil {
		a.Result = wire.Result.list
	}
	return nil
}

// regions tells an absent result from a null one: null sets the pointer to nil, absence leaves what was there before.
type regions struct {
	absent bool
	list   []Region
}

// UnmarshalJSON reads a list, whatever is in it: Label Studio saves what programs write there, numbers for ids, lists for names even where it
// then answers 500, and imports what is no object. What is not of its type is as if it were not there; as an error it would hide all tasks of
// its listing.
func (r *regions) UnmarshalJSON(text []byte) error {
	r.absent = false
	err := json.Unmarshal(text, &r.list)
	var odd *json.UnmarshalTypeError
	if errors.As(err, &odd) { // all the rest was read
		return json.Unmarshal(text, new([]json.RawMessage))
	}
	return err
}

// UnmarshalJSON reads a number, an object with id or user_id and email, a list of which the first counts, or null.
func (u *UserRef) UnmarshalJSON(text []byte) error {
	*u = UserRef{}
	switch text = bytes.TrimSpace(text); {
	case len(text) > 0 && text[0] == '[':
		var list []UserRef
		if err := json.Unmarshal(text, &list); err != nil {
			return err
		}
		if len(list) > 0 {
			*u = list[0]
		}
		return nil
	case len(text) > 0 && text[0] == '{':
		var object struct {
			ID     int64  `json:"id"`
			UserID int64  `json:"user_id"`
			Email  string `json:"email"`
		}
		if err := json.Unmarshal(text, &object); err != nil {
			return err
		}
		*u = UserRef{ID: object.ID, Email: object.Email}
		if u.ID == 0 {
			u.ID = object.UserID
		}
		return nil
	}
	return json.Unmarshal(text, &u.ID)
}
