package labelstudio

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
)

// projectPage is the page size of [Client.Projects].
const projectPage = 100

// Project is a project as far as the list of projects tells it.
type Project struct {
	ID         int64  `json:"id"`
	Title      string `json:"title"`
	TaskNumber int    `json:"task_number"` // how many tasks it has; 0 where the answer does not say
	// LabelConfig is the XML of the labeling interface; [Client.LabelConfigs] alone asks for it.
	LabelConfig string `json:"label_config"`
}

// The keys that a page of projects is asked for. A configuration can have some kilobytes.
const (
	projectKeys = "id,title,task_number"
	configKeys  = projectKeys + ",label_config"
)

// Projects returns all projects that the token's user can see, page by page.
func (c *Client) Projects(ctx context.Context) ([]Project, error) {
	return c.projects(ctx, projectKeys)
}

// LabelConfigs returns the same with their labeling interfaces.
func (c *Client) LabelConfigs(ctx context.Context) ([]Project, error) {
	return c.projects(ctx, configKeys)
}

func (c *Client) projects(ctx context.Context, keys string) ([]Project, error) {
	var all []Project
	seen := make(map[int64]bool) // one that is made meanwhile moves others to the next page
	for number := 1; ; number++ {
		results, more, err := c.projectPage(ctx, keys, number)
		if number > 1 && IsNotFound(err) {
			return all, nil // deleted meanwhile: there is no such page any more
		}
		if err != nil {
			return nil, fmt.Errorf("list projects: %w", err)
		}
		known := len(all)
		for _, p := range results {
			if !seen[p.ID] {
				seen[p.ID] = true
				all = append(all, p)
			}
		}
		if !more || len(all) == known {
			return all, nil
		}
	}
}

func (c *Client) projectPage(ctx context.Context, keys string, number int) (results []Project, more bool, err error) {
	body, err := c.do(ctx, call{op: OpProjects, method: http.MethodGet, path: "/api/projects/", maxBody: maxSmallBody, query: url.Values{
		"page": {strconv.Itoa(number)}, "page_size": {strconv.Itoa(projectPage)}, "include": {keys},
	}})
	if err != nil {
		return nil, false, err
	}
	if results, more, err = decodeProjects(body); err != nil {
		return nil, false, undecodable(OpProjects, err)
	}
	return results, more, nil
}

// decodeProjects looks at whether there is a next page, not at its address, which names the host as the server sees itself.
func decodeProjects(body []byte) (results []Project, more bool, err error) {
	var wire struct {
		Next    *string    `json:"next"`
		Results *[]Project `json:"results"`
	}
	if err := json.Unmarshal(body, &wire); err != nil {
		return nil, false, err
	}
	if wire.Results == nil {
		return nil, false, errors.New("a page of projects without results")
	}
	for _, p := range *wire.Results {
		if p.ID == 0 {
			return nil, false, errors.New("a project without an id")
		}
	}
	return *wire.Results, wire.Next != nil, nil
}

// NewProject is a project to create.
type NewProject struct {
	Title       string `json:"title"` // 3 to 50 characters
	Description string `json:"description,omitempty"`
	LabelConfig string `json:"label_config,omitempty"` // XML
}

// CreateProject creates a project.
func (c *Client) CreateProject(ctx context.Context, p NewProject) (Project, error) {
	body, err := json.Marshal(p)
	if err != nil {
		return Project{}, fmt.Errorf("create project %q: %w", p.Title, notSent(OpProjectCreate, err))
	}
	var out Project
	err = c.doJSON(ctx, call{op: OpProjectCreate, method: http.MethodPost, path: "/api/projects/", body: body}, &out)
	if err != nil {
		return Project{}, fmt.Errorf("create project %q: %w", p.Title, err)
	}
	return out, nil
}

// TouchProject saves a project with the title that it has, which changes nothing but its updated_at, and is announced as [ProjectUpdated].
func (c *Client) TouchProject(ctx context.Context, p Project) error {
	body, err := json.Marshal(map[string]string{"title": p.Title})
	if err == nil {
		_, err = c.do(ctx, call{op: OpProjectUpdate, method: http.MethodPatch, path: "/api/projects/" + strconv.FormatInt(p.ID, 10) + "/", body: body, maxBody: maxSmallBody})
	}
	if err != nil {
		return fmt.Errorf("touch project %d: %w", p.ID, err)
	}
	return nil
}

// DeleteProject deletes a project with all its tasks, annotations and webhooks.
func (c *Client) DeleteProject(ctx context.Context, id int64) error {
	_, err := c.do(ctx, call{op: OpProjectDelete, method: http.MethodDelete, path: "/api/projects/" + strconv.FormatInt(id, 10) + "/", maxBody: maxSmallBody})
	if err != nil {
		return fmt.Errorf("delete project %d: %w", id, err)
	}
	return nil
}

// doJSON makes a request whose answer is of one shape, and small unless the call says otherwise.
func (c *Client) doJSON(ctx context.Context, r call, out any) error {
	r.maxBody = cmp.Or(r.maxBody, maxSmallBody)
	body, err := c.do(ctx, r)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, out); err != nil {
		return undecodable(r.op, err)
	}
	return nil
}
