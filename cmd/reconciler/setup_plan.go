package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/aristotle/reconciler/aristotle"
)

// login is a role that a URL names, with the password that it gives; verifier is made from it ("" without a password).
type login struct {
	name, password, verifier string
	dsn                      DSN
}

// wish is what there should be.
type wish struct {
	ordinary, replication login
	schema, publication   string
}

// facts is what was found; see [look].
type facts struct {
	version  int // as in server_version_num
	walLevel string
	database string
	admin    string // who we are
	super    bool   // whether the admin is a superuser
	rds      bool   // Amazon's server, where membership in rds_replication stands for the attribute
	// roles has the roles of the wish that exist, tables those of the contract that do, in its order.
	roles        map[string]role
	tables       []table
	schemaOwner  string   // "" where our schema does not exist
	ownerMember  bool     // whether the admin may make something the ordinary role's
	privileges   []string // what the ordinary role may do, as [privilege] writes it
	publication  publication
	connectRoles []string // roles of the wish that may connect to the database
}

type role struct {
	login, replication, passwordRight bool
}

// table is one of Aristotle's, as far as a publication depends on it.
type table struct {
	name, kind string
	// identity is relreplident: d (the primary key), i (an index), f (the whole row), n (nothing).
	identity string
	// key has the columns of the replica identity, empty for f and n.
	key []string
}

// publication is ours as it is.
type publication struct {
	exists, allTables, schemas, filtered, viaRoot bool
	operations                                    int // how many of the four are published
	// members are the tables in it, as [table.member] writes them, sorted.
	members []string
}

// statement is one step. Why completes "done: " and "…: permission denied".
type statement struct {
	sql, why string
	hint     string // what to do where the admin may not
	step     bool   // whether to tell it as something that was done
}

// privilege writes a right as one text, to be compared with what [look] found.
func privilege(r aristotle.Right) string {
	if r.Column != "" {
		return r.Verb + " " + r.Table + "." + r.Column
	}
	return r.Verb + " " + r.Table
}

// planSetup compares wish and facts: what has to run, in order, or the findings that forbid running anything.
func planSetup(w wish, f facts) (statements []statement, findings []string) {
	if findings = setupFindings(w, f); len(findings) > 0 {
		return nil, findings
	}
	statements = slices.Concat(planRoles(w, f), planRights(w, f), planSchema(w, f), planPublication(w, f))
	if len(statements) == 0 {
		return nil, nil
	}
	// An application's migration may hold locks on its tables: then we fail after a moment, instead of queueing everybody behind us.
	wait := statement{sql: "SET LOCAL lock_timeout = '10s'", why: "wait for nobody's lock longer than that"}
	return append([]statement{wait}, statements...), nil
}

// setupFindings are the reasons to change nothing. The most important ones are those for which a publication would make the
// application's own UPDATEs fail (cdc.md 1.5-a): INSERTs would go on working, so it would show late and somewhere else.
func setupFindings(w wish, f facts) (findings []string) {
	add := func(format string, args ...any) { findings = append(findings, fmt.Sprintf(format, args...)) }
	if f.version < 150000 {
		add("PostgreSQL %d is too old: it must be 15 or newer", f.version/10000)
	}
	for _, name := range aristotle.RequiredTables() {
		if !slices.ContainsFunc(f.tables, func(t table) bool { return t.name == name }) {
			add("database %q has no table public.%s: is it the application's, and have its migrations run?", f.database, ident(name))
		}
	}
	for _, t := range f.tables {
		switch {
		case t.kind != "r":
			add("public.%s is no ordinary table, so its changes cannot be published as ours need to be", ident(t.name))
		case t.identity == "f":
		case len(t.key) == 0:
			add("public.%s has no replica identity: published, its UPDATEs and DELETEs would fail in the application. "+
				"Let the application's owner add a primary key: ALTER TABLE public.%[1]s ADD PRIMARY KEY (id)", ident(t.name))
		case !slices.Contains(t.key, "id"):
			add("public.%s is identified by (%s), not by id: without id the stream could not say which row was deleted",
				ident(t.name), strings.Join(t.key, ", "))
		}
	}
	if f.schemaOwner != "" && f.schemaOwner != w.ordinary.name {
		add("schema %s belongs to role %q, not to %q: choose another RECONCILER_SCHEMA, or, if it is ours from before, give it and "+
			"everything in it to the new role: ALTER SCHEMA %[1]s OWNER TO %[4]s, and the same for its tables",
			ident(w.schema), f.schemaOwner, w.ordinary.name, ident(w.ordinary.name))
	}
	if f.publication.allTables {
		add("publication %s is FOR ALL TABLES, so not ours: drop it, or choose another RECONCILER_PUBLICATION", ident(w.publication))
	}
	return findings
}

// planRoles makes the roles what the URLs say. The role that we are is left as it is, but for REPLICATION.
func planRoles(w wish, f facts) (statements []statement) {
	logins := []login{w.ordinary}
	if w.replication.name != w.ordinary.name {
		logins = append(logins, w.replication)
	}
	for _, l := range logins {
		have, exists := f.roles[l.name]
		var attributes []string
		if !exists || !have.login {
			attributes = append(attributes, "LOGIN")
		}
		streams := l.name == w.replication.name && !have.replication
		if streams && !f.rds {
			attributes = append(attributes, "REPLICATION")
		}
		if l.verifier != "" && l.name != f.admin && !(exists && have.passwordRight) {
			attributes = append(attributes, "PASSWORD "+literal(l.verifier))
		}
		if s, ok := roleStatement(l.name, exists, attributes); ok {
			statements = append(statements, s)
		}
		if streams && f.rds {
			statements = append(statements, statement{step: true,
				sql: "GRANT rds_replication TO " + ident(l.name), why: fmt.Sprintf("let role %q replicate", l.name)})
		}
		if !slices.Contains(f.connectRoles, l.name) {
			statements = append(statements, statement{step: true,
				sql: "GRANT CONNECT ON DATABASE " + ident(f.database) + " TO " + ident(l.name),
				why: fmt.Sprintf("let role %q connect to database %q", l.name, f.database)})
		}
	}
	return statements
}

func roleStatement(name string, exists bool, attributes []string) (statement, bool) {
	verb, why := "CREATE", "create role"
	if exists {
		verb, why = "ALTER", "give what was missing (login, replication or password) to role"
	}
	return statement{
		sql:  fmt.Sprintf("%s ROLE %s %s", verb, ident(name), strings.Join(attributes, " ")),
		why:  fmt.Sprintf("%s %q", why, name),
		step: true,
		hint: fmt.Sprintf("ARISTOTLE_ADMIN_URL must name a user with CREATEROLE, and only one with REPLICATION (before PostgreSQL 16: a "+
			"superuser) may pass that on. Managed servers: GRANT rds_replication TO %[1]s on RDS; on Cloud SQL and Azure "+
			"ALTER ROLE %[1]s REPLICATION as the administrator they gave you.", ident(name)),
	}, len(attributes) > 0
}

// planRights grants what the ordinary role lacks. Nothing is revoked: what somebody else granted is theirs.
func planRights(w wish, f facts) (statements []statement) {
	to := " TO " + ident(w.ordinary.name)
	const hint = "Only the owner of the application's tables, or a superuser, may grant rights on them: name that user in ARISTOTLE_ADMIN_URL."
	if !slices.Contains(f.privileges, "USAGE public") {
		statements = append(statements, statement{step: true, hint: hint,
			sql: "GRANT USAGE ON SCHEMA public" + to, why: fmt.Sprintf("let role %q into schema public", w.ordinary.name)})
	}
	for _, t := range f.tables {
		var items []string
		var columns []string
		for _, g := range aristotle.Rights(t.name) {
			switch {
			case slices.Contains(f.privileges, privilege(g)):
			case g.Column != "":
				columns = append(columns, ident(g.Column))
			default:
				items = append(items, g.Verb)
			}
		}
		if len(columns) > 0 {
			items = append(items, "UPDATE ("+strings.Join(columns, ", ")+")")
		}
		if len(items) > 0 {
			statements = append(statements, statement{step: true, hint: hint,
				sql: "GRANT " + strings.Join(items, ", ") + " ON TABLE public." + ident(t.name) + to,
				why: fmt.Sprintf("let role %q use table %s", w.ordinary.name, ident(t.name))})
		}
	}
	return statements
}

// planSchema makes our schema the ordinary role's. Who is no superuser must be a member of the role for that moment; the
// membership ends in the same transaction.
func planSchema(w wish, f facts) []statement {
	if f.schemaOwner != "" {
		return nil
	}
	create := statement{step: true,
		sql:  "CREATE SCHEMA " + ident(w.schema) + " AUTHORIZATION " + ident(w.ordinary.name),
		why:  fmt.Sprintf("create schema %s, owned by role %q", ident(w.schema), w.ordinary.name),
		hint: "ARISTOTLE_ADMIN_URL must name a user with CREATE on the database, as its owner has."}
	if f.super || f.ownerMember || f.admin == w.ordinary.name {
		return []statement{create}
	}
	join := "GRANT " + ident(w.ordinary.name) + " TO CURRENT_USER"
	if f.version >= 160000 {
		join += " WITH SET TRUE, INHERIT FALSE"
	}
	return []statement{
		{sql: join, why: fmt.Sprintf("become a member of role %q to make a schema for it", w.ordinary.name)},
		create,
		{sql: "REVOKE " + ident(w.ordinary.name) + " FROM CURRENT_USER GRANTED BY CURRENT_USER", why: "end that membership"},
	}
}

// planPublication makes the publication, or sets its tables. It is never dropped and made anew: a slot that reads WAL from
// between the two would fail for ever (cdc.md 1.3-a).
func planPublication(w wish, f facts) (statements []statement) {
	const hint = "Only the owner of the application's tables with CREATE on the database, or a superuser, may publish them: name that user in ARISTOTLE_ADMIN_URL."
	name, p := ident(w.publication), f.publication
	var members []string
	for _, t := range f.tables {
		members = append(members, t.member())
	}
	tables := strings.Join(members, ", ")
	if !p.exists {
		return []statement{{step: true, hint: hint, sql: "CREATE PUBLICATION " + name + " FOR TABLE " + tables,
			why: "create publication " + name}}
	}
	slices.Sort(members)
	if p.schemas || p.filtered || !slices.Equal(members, p.members) {
		statements = append(statements, statement{step: true, hint: hint,
			sql: "ALTER PUBLICATION " + name + " SET TABLE " + tables, why: "set the tables of publication " + name})
	}
	if p.operations != 4 || p.viaRoot {
		statements = append(statements, statement{step: true, hint: hint,
			sql: "ALTER PUBLICATION " + name + " SET (publish = 'insert, update, delete, truncate', publish_via_partition_root = false)",
			why: "make publication " + name + " publish every kind of change"})
	}
	return statements
}

// member is the table's part of FOR TABLE: with its key columns alone, but without a list under REPLICA IDENTITY FULL, where
// a list makes the application's UPDATEs fail.
func (t table) member() string {
	if t.identity == "f" {
		return member("public", t.name, nil)
	}
	return member("public", t.name, t.key)
}

func member(schema, name string, columns []string) string {
	m := ident(schema) + "." + ident(name)
	if len(columns) == 0 {
		return m
	}
	quoted := make([]string, len(columns))
	for i, c := range columns {
		quoted[i] = ident(c)
	}
	slices.Sort(quoted)
	return m + " (" + strings.Join(quoted, ", ") + ")"
}

// ident quotes a name for SQL.
func ident(name string) string { return pgx.Identifier{name}.Sanitize() }

// literal quotes a text for SQL; standard_conforming_strings is on by default since PostgreSQL 9.1.
func literal(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }
