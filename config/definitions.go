package config

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"text/template/parse"

	"github.com/aviary-rollouts/aviary/rollout"
)

// kinds of metric definitions.
var kinds = []string{"ratio", "count", "mean", "quantile", "value"}

// fieldsOfKind are the fields that a definition of a kind needs, by provider, beside kind and better. It has no others. A kind that is not there can't be had
// from the provider.
var fieldsOfKind = map[string]map[string][]string{
	ProviderPrometheus: {
		"ratio": {"events", "trials"}, "count": {"events", "trials"}, "mean": {"sum", "count"}, "quantile": {"quantile", "histogram"}, "value": {"query"},
	},
	ProviderHTTP: {
		"ratio": {"query", "events", "trials"}, "count": {"query", "events", "trials"}, "mean": {"query", "sum", "count"}, "value": {"query", "value"},
	},
	ProviderSQL: {"ratio": {"query"}, "count": {"query"}, "mean": {"query"}, "value": {"query"}},
}

const maxQuery = 4096 // bytes

var (
	metricName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)
	relative   = regexp.MustCompile(`_(increase|decrease|drop|regression)$`)
	// selector is a counter's or a histogram's name, perhaps with label matchers. What is in the braces is the source's to judge.
	selector = regexp.MustCompile(`(?s)^[a-zA-Z_:][a-zA-Z0-9_:]*\s*(\{.*\})?$`)
)

func checkDefinitions(m rollout.Metrics, r report) {
	if len(m.Definitions) == 0 {
		if m.Provider == ProviderHTTP || m.Provider == ProviderSQL {
			r("definitions", "is missing, want every metric that is asked for: the provider %s has no presets", m.Provider)
		}
		return
	}
	if m.Provider == ProviderRouter {
		r("definitions", "the provider router has presets only, want none; or another provider")
		return
	}
	if len(m.Definitions) > maxDefinitions {
		r("definitions", "%d definitions, want at most %d", len(m.Definitions), maxDefinitions)
		return
	}
	counts := hasPresets(m.Provider)
	for _, name := range slices.Sorted(maps.Keys(m.Definitions)) {
		counts = counts || m.Definitions[name].Kind == "ratio" || m.Definitions[name].Kind == "count"
		path := child("definitions", name)
		switch {
		case !metricName.MatchString(name):
			r(path, "%s is not the name of a metric, want [a-z][a-z0-9_]*", quote(name))
		case relative.MatchString(name):
			r(path, "%s ends as a comparison does, want a name without %s", quote(name), relative.FindString(name))
		}
		checkDefinition(m.Provider, m.Definitions[name], r.under(path))
	}
	if !counts {
		r("definitions", "nothing counts requests, want a ratio such as error_rate, whose trials do; or total_requests")
	}
}

func checkDefinition(provider string, d rollout.Definition, r report) {
	checkOneOf(d.Better, "better", r, "lower", "higher")
	checkOneOf(d.Kind, "kind", r, kinds...)
	needed, ok := fieldsOfKind[provider][d.Kind]
	if !ok {
		if slices.Contains(kinds, d.Kind) && fieldsOfKind[provider] != nil {
			r("kind", "%s can't be had from the provider %s, want %s", d.Kind, provider, oneOf(slices.Sorted(maps.Keys(fieldsOfKind[provider]))...))
		}
		return
	}
	for _, f := range []struct{ name, value string }{
		{"events", d.Events}, {"trials", d.Trials}, {"sum", d.Sum}, {"count", d.Count}, {"histogram", d.Histogram}, {"query", d.Query}, {"value", d.Value},
	} {
		needs := slices.Contains(needed, f.name)
		switch {
		case needs && strings.TrimSpace(f.value) == "":
			r(f.name, "is missing, want it for kind: %s, which has %s", d.Kind, strings.Join(needed, " and "))
		case !needs && f.value != "":
			r(f.name, "is not for kind: %s, which has %s", d.Kind, strings.Join(needed, " and "))
		case !needs:
		case len(f.value) > maxQuery:
			r(f.name, "%d bytes, want at most %d", len(f.value), maxQuery)
		default:
			checkField(provider, f.name, f.value, r)
		}
	}
	if d.Kind == "quantile" && !(d.Quantile > 0 && d.Quantile < 1) { // false for NaN
		r("quantile", "%v, want more than 0 and less than 1, such as 0.95", d.Quantile)
	}
	if d.Kind != "quantile" && d.Quantile != 0 {
		r("quantile", "is not for kind: %s, which has %s", d.Kind, strings.Join(needed, " and "))
	}
}

// checkField checks what one field of a definition says to its provider.
func checkField(provider, name, value string, r report) {
	switch {
	case name == "query" && provider == ProviderPrometheus:
		checkQuery(value, promFields, r)
	case name == "query" && provider == ProviderHTTP:
		checkQuery(value, httpFields, r)
		d := rollout.Definition{Query: value}
		switch {
		case !strings.HasPrefix(value, "/"):
			r("query", "%s, want a path below the target's address, such as /stats?version={{.Version}}", quote(value))
		case d.Fills("From") != d.Fills("To"):
			r("query", "has one of {{.From}} and {{.To}}, want both, for what happened between them, or neither, for totals that only grow")
		case !d.Fills("Version"):
			r("query", "is the same for both versions, want {{.Version}} in it")
		}
	case name == "query" && provider == ProviderSQL:
		checkSQL(value, r)
	case provider == ProviderHTTP:
		if !strings.HasPrefix(value, "$") {
			r(name, "%s, want JSONPath into the answer, such as $.data.errors", quote(value))
		}
	case !selector.MatchString(value):
		r(name, "%s, want a metric with labels or without, such as agent_tool_calls_total{outcome=\"error\"}", quote(value))
	}
}

// checkSQL wants a query that tells the versions apart. What is in it is the database's to judge.
func checkSQL(query string, r report) {
	for _, name := range []string{"@versions", "@from", "@to"} {
		if !strings.Contains(query, name) {
			r("query", "has no %s, want @versions, @from and @to, and @agent where the table holds several agents", name)
			return
		}
	}
}

// What queries may fill in.
var (
	promFields = []string{"Agent", "Version", "Window"}
	httpFields = []string{"Agent", "Version", "From", "To"}
)

func filledIn(fields []string) string { return "{{." + strings.Join(fields, "}}, {{.") + "}}" }

// checkQuery wants a template that only fills in names: nothing that loops, calls or decides.
func checkQuery(query string, fields []string, r report) {
	tree := parse.New("query")
	tree.Mode = parse.SkipFuncCheck
	if _, err := tree.Parse(query, "{{", "}}", map[string]*parse.Tree{}); err != nil {
		text := strings.TrimPrefix(err.Error(), "template: query:")
		r("query", "not a template (line %s), want text with %s", text, filledIn(fields))
		return
	}
	if tree.Root == nil {
		return
	}
	for _, node := range tree.Root.Nodes {
		if node.Type() != parse.NodeText && !fillsIn(node, fields) {
			r("query", "%s, want %s only", clip(node.String()), filledIn(fields))
			return
		}
	}
}

// fillsIn reports whether a node of a template is one of the fields.
func fillsIn(node parse.Node, fields []string) bool {
	action, ok := node.(*parse.ActionNode)
	if !ok || len(action.Pipe.Decl) > 0 || len(action.Pipe.Cmds) != 1 || len(action.Pipe.Cmds[0].Args) != 1 {
		return false
	}
	field, ok := action.Pipe.Cmds[0].Args[0].(*parse.FieldNode)
	return ok && len(field.Ident) == 1 && slices.Contains(fields, field.Ident[0])
}
