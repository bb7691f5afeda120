package sandbox

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"
)

//go:embed dump.sql
var dumpSQL string

// Email is the one user of every real Label Studio here, an administrator.
const Email = "annotator@sandbox.example"

// makeTemplate lets Label Studio create its tables in a fresh database, which takes about a minute, and keeps the result as statements
// that any PostgreSQL can run in a second, together with the file that has its SECRET_KEY.
func (i installation) makeTemplate(ctx context.Context, postgres string) (err error) {
	i.log("Label Studio " + realVersion + ": creating its database, once: about a minute")
	database, err := createDatabase(ctx, postgres)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dropDatabase(context.WithoutCancel(ctx), postgres, database)) }()
	data := filepath.Join(i.dir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		return err
	}
	env, err := environment(data, database)
	if err != nil {
		return err
	}
	p, err := i.spawn(data, env, "init", "--quiet", "--username", Email, "--password", rand.Text(), "--enable-legacy-api-token")
	if err != nil {
		return err
	}
	if err := p.finish(ctx); err != nil {
		return fmt.Errorf("create Label Studio's database: %w", err)
	}
	statements, err := dump(ctx, database)
	if err != nil {
		return fmt.Errorf("copy Label Studio's database: %w", err)
	}
	if err := os.WriteFile(i.template(), []byte(statements), 0o600); err != nil {
		return err
	}
	return errors.Join(os.Rename(filepath.Join(data, ".env"), i.secrets()), os.RemoveAll(data))
}

// dump gives the statements that make a copy of a database; dump.sql says how.
func dump(ctx context.Context, database string) (string, error) {
	conn, err := pgx.Connect(ctx, database)
	if err != nil {
		return "", err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	rows, err := conn.Query(ctx, dumpSQL)
	if err != nil {
		return "", err
	}
	type step struct{ Kind, Statement string }
	steps, err := pgx.CollectRows(rows, pgx.RowToStructByPos[step])
	if err != nil {
		return "", err
	}
	var all []string
	for _, s := range steps {
		switch s.Kind {
		case "unknown":
			return "", fmt.Errorf("do not know how to copy %s", s.Statement)
		case "rows":
			rows, err := conn.Query(ctx, s.Statement)
			if err != nil {
				return "", err
			}
			inserts, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				return "", err
			}
			all = append(all, inserts...)
		default:
			all = append(all, s.Statement)
		}
	}
	return strings.Join(all, ";\n") + ";\n", nil
}

// restore fills an empty database and gives its user a token and a password of this start alone.
func (i installation) restore(ctx context.Context, database, token, password string) error {
	statements, err := os.ReadFile(i.template())
	if err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, database)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	// One message, and so one transaction.
	if _, err := conn.PgConn().Exec(ctx, string(statements)).ReadAll(); err != nil {
		return fmt.Errorf("restore Label Studio's database: %w", err)
	}
	hash, err := djangoHash(password)
	if err != nil {
		return err
	}
	for _, update := range [][2]string{
		{"UPDATE authtoken_token SET key = $1", token},
		{"UPDATE htx_user SET password = $1 WHERE is_superuser", hash},
	} {
		if _, err := conn.Exec(ctx, update[0], update[1]); err != nil {
			return fmt.Errorf("set Label Studio's token and password: %w", err)
		}
	}
	return nil
}

// createDatabase makes an empty database with a name that nobody else has, and returns its URL.
func createDatabase(ctx context.Context, postgres string) (string, error) {
	u, err := url.Parse(postgres)
	if err != nil {
		return "", errors.New("RealOptions.Postgres is not a postgres:// URL") // the error itself would show the password
	}
	name := "label_studio_" + strings.ToLower(rand.Text()[:12])
	if err := execute(ctx, postgres, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()); err != nil {
		return "", fmt.Errorf("create a database for Label Studio: %w", err)
	}
	u.Path = "/" + name
	return u.String(), nil
}

func dropDatabase(ctx context.Context, postgres, database string) error {
	config, err := pgx.ParseConfig(database)
	if err != nil {
		return err
	}
	if err := execute(ctx, postgres, "DROP DATABASE IF EXISTS "+pgx.Identifier{config.Database}.Sanitize()+" WITH (FORCE)"); err != nil {
		return fmt.Errorf("drop Label Studio's database: %w", err)
	}
	return nil
}

// execute runs a statement on a connection of its own.
func execute(ctx context.Context, postgres, statement string) error {
	conn, err := pgx.Connect(ctx, postgres)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, statement)
	return errors.Join(err, conn.Close(context.WithoutCancel(ctx)))
}
