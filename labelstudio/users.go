package labelstudio

import (
	"context"
	"errors"
	"fmt"
	"net/http"
)

// User is a member of the organization.
type User struct {
	ID    int64  `json:"id"`
	Email string `json:"email"`
}

// Whoami returns the token's user: it proves the address, the database and the token.
func (c *Client) Whoami(ctx context.Context) (User, error) {
	var u User
	err := c.doJSON(ctx, call{op: OpWhoami, method: http.MethodGet, path: "/api/current-user/whoami"}, &u)
	if err == nil && u.ID == 0 {
		err = undecodable(OpWhoami, errors.New("a user without an id"))
	}
	if err != nil {
		return User{}, fmt.Errorf("ask who we are: %w", err)
	}
	return u, nil
}

// Users returns all members of the organization.
func (c *Client) Users(ctx context.Context) ([]User, error) {
	var users []User
	if err := c.doJSON(ctx, call{op: OpUsers, method: http.MethodGet, path: "/api/users/", maxBody: maxUsersBody}, &users); err != nil {
		return nil, fmt.Errorf("list users: %w", err)
	}
	return users, nil
}

// Version returns Label Studio's release, such as "1.23.2". It needs no token.
func (c *Client) Version(ctx context.Context) (string, error) {
	var v struct {
		Release string `json:"release"`
	}
	err := c.doJSON(ctx, call{op: OpVersion, method: http.MethodGet, path: "/api/version/", anonymous: true}, &v)
	if err == nil && v.Release == "" {
		err = undecodable(OpVersion, errors.New("no release in it"))
	}
	if err != nil {
		return "", fmt.Errorf("ask for the version: %w", err)
	}
	return v.Release, nil
}
