package sql

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/aviary-rollouts/aviary/activities/metrics"
	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/rollout"
)

const (
	maxRows       = 1000 // of an answer: it has one per version
	mostCountable = 1 << 53
)

// query is a definition, ready to be asked.
type query struct {
	name string // of the metric
	kind analysis.Kind
	text string
}

// columnsOf are the columns that a query answers with, beside version. Others are ignored.
var columnsOf = map[analysis.Kind][]string{
	analysis.Ratio: {"events", "trials"}, analysis.Count: {"events", "trials"}, analysis.Mean: {"sum", "count"}, analysis.Value: {"value"},
}

// planOf makes queries of what is asked for, sorted by the metrics' names. Errors say what can never be answered.
func planOf(request metrics.Request) ([]query, error) {
	for _, f := range []struct{ what, name string }{{"agent", request.Agent}, {"stable", request.Stable}, {"canary", request.Canary}} {
		if !rollout.ValidName(f.name) {
			return nil, fmt.Errorf("%s %q: want %s", f.what, f.name, rollout.NamePattern)
		}
	}
	var plan []query
	for _, m := range request.Metrics {
		switch {
		case m.Definition == nil && m.Name == analysis.TotalRequests:
			continue // what counts requests is asked for by another name
		case m.Definition == nil:
			return nil, fmt.Errorf("metric %s has no definition, and the provider sql has no presets", m.Name)
		case columnsOf[m.Kind] == nil:
			return nil, fmt.Errorf("metric %s: kind %s can't be had from the provider sql", m.Name, m.Kind)
		}
		plan = append(plan, query{m.Name, m.Kind, m.Definition.Query})
	}
	slices.SortFunc(plan, func(a, b query) int { return cmp.Compare(a.name, b.name) })
	return plan, nil
}

// table is what a query answered.
type table struct {
	columns []column
	rows    [][]any
}

type column struct {
	name   string
	kind   string // as PostgreSQL calls it; empty: a type of one's own, such as an enum
	number bool
	text   bool
}

var (
	numberTypes = []uint32{pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.Float4OID, pgtype.Float8OID, pgtype.NumericOID}
	textTypes   = []uint32{pgtype.TextOID, pgtype.VarcharOID, pgtype.BPCharOID, pgtype.NameOID}
)

// run asks one query.
func run(ctx context.Context, tx pgx.Tx, text string, args pgx.NamedArgs) (*table, error) {
	rewritten, values, err := args.RewriteQuery(ctx, nil, text, nil)
	if err != nil {
		return nil, impossiblef("the query can't be read: %v", err)
	}
	if slices.Contains(values, nil) { // pgx takes what it does not know for NULL
		return nil, impossiblef("the query has an argument that there is not, want @agent, @versions, @from and @to")
	}
	rows, err := tx.Query(ctx, rewritten, values...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := &table{}
	for _, f := range rows.FieldDescriptions() {
		c := column{name: f.Name, number: slices.Contains(numberTypes, f.DataTypeOID), text: slices.Contains(textTypes, f.DataTypeOID)}
		if known, ok := tx.Conn().TypeMap().TypeForOID(f.DataTypeOID); ok {
			c.kind = known.Name
		} else {
			c.text = true
		}
		out.columns = append(out.columns, c)
	}
	for rows.Next() {
		if len(out.rows) == maxRows {
			return nil, impossiblef("the query answers with more than %d rows, want one per version (GROUP BY version)", maxRows)
		}
		row, err := rows.Values()
		if err != nil {
			return nil, fmt.Errorf("row %d: %w", len(out.rows)+1, err)
		}
		out.rows = append(out.rows, row)
	}
	return out, rows.Err()
}

// sample takes both versions' numbers out. A version without a row has none.
func (t *table) sample(kind analysis.Kind, stable, canary string) (analysis.Sample, error) {
	var s analysis.Sample
	want := columnsOf[kind]
	at, err := t.find(want)
	if err != nil {
		return s, err
	}
	seen := map[string]bool{}
	for _, row := range t.rows {
		version, ok := row[at[0]].(string)
		if !ok {
			return s, errors.New("column version is NULL, want a version; as by WHERE version = ANY(@versions)")
		}
		version = strings.TrimRight(version, " ") // of char(n)
		into := &s.Stable
		switch version {
		case stable:
		case canary:
			into = &s.Canary
		default:
			continue
		}
		if seen[version] {
			return s, fmt.Errorf("the query answers twice for version %s, want one row (GROUP BY version)", version)
		}
		seen[version] = true
		if *into, err = countsOf(kind, row, want, at[1:]); err != nil {
			return s, fmt.Errorf("version %s: %w", version, err)
		}
	}
	return s, nil
}

// find is where version and the columns wanted are.
func (t *table) find(want []string) ([]int, error) {
	var at []int
	for i, name := range append([]string{"version"}, want...) {
		found := -1
		for j, c := range t.columns {
			switch {
			case c.name != name:
			case found >= 0:
				return nil, impossiblef("the query answers with two columns %s, want one", name)
			case i == 0 && !c.text:
				return nil, impossiblef("column version is of type %s, want text, as by version::text", c.kind)
			case i > 0 && !c.number:
				return nil, impossiblef("column %s is of type %s, want a number such as bigint or double precision", name, cmp.Or(c.kind, "one's own"))
			default:
				found = j
			}
		}
		if found < 0 {
			return nil, impossiblef("the query answers without a column %s, want version, %s", name, strings.Join(want, " and "))
		}
		at = append(at, found)
	}
	return at, nil
}

// countsOf takes one version's numbers out of its row.
func countsOf(kind analysis.Kind, row []any, names []string, at []int) (analysis.Counts, error) {
	var x [2]float64
	for i, name := range names {
		var err error
		if x[i], err = number(row[at[i]]); err != nil {
			return analysis.Counts{}, fmt.Errorf("column %s is %w", name, err)
		}
		switch {
		case kind == analysis.Value:
		case x[i] < 0:
			return analysis.Counts{}, fmt.Errorf("column %s is %v, want 0 or more", name, x[i])
		case x[i] > mostCountable:
			return analysis.Counts{}, fmt.Errorf("column %s is %v, want at most 2^53", name, x[i])
		}
	}
	switch {
	case kind == analysis.Value:
		return analysis.Counts{Value: x[0], HasValue: true}, nil
	case kind == analysis.Ratio && x[0] > x[1]:
		return analysis.Counts{}, fmt.Errorf("events are %v and trials %v: more events than trials", x[0], x[1])
	case kind == analysis.Mean && x[1] == 0 && x[0] != 0:
		return analysis.Counts{}, fmt.Errorf("sum is %v of no observations", x[0])
	}
	return analysis.Counts{X: x[0], N: x[1]}, nil
}

// number is a column's value, if it is finite. The error completes "column x is …".
func number(v any) (float64, error) {
	var x float64
	switch n := v.(type) {
	case nil:
		return 0, errors.New("NULL, want a number, as by coalesce(…, 0) where nothing is zero")
	case int16:
		x = float64(n)
	case int32:
		x = float64(n)
	case int64:
		x = float64(n)
	case float32:
		x = float64(n)
	case float64:
		x = n
	case pgtype.Numeric:
		f, err := n.Float64Value()
		if err != nil || !f.Valid {
			return 0, errors.New("not a number that can be counted")
		}
		x = f.Float64
	default:
		return 0, fmt.Errorf("a %T, want a number", v)
	}
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return 0, fmt.Errorf("%v, want a finite number", x)
	}
	return x, nil
}
