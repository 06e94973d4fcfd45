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

// fieldsOfKind are the fields that a definition of a kind needs, beside kind and better. It has no others.
var fieldsOfKind = map[string][]string{
	"ratio":    {"events", "trials"},
	"count":    {"events", "trials"},
	"mean":     {"sum", "count"},
	"quantile": {"quantile", "histogram"},
	"value":    {"query"},
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
		return
	}
	if m.Provider == ProviderRouter {
		r("definitions", "the provider router has presets only, want none; or provider: prometheus")
		return
	}
	if len(m.Definitions) > maxDefinitions {
		r("definitions", "%d definitions, want at most %d", len(m.Definitions), maxDefinitions)
		return
	}
	for _, name := range slices.Sorted(maps.Keys(m.Definitions)) {
		path := child("definitions", name)
		switch {
		case !metricName.MatchString(name):
			r(path, "%s is not the name of a metric, want [a-z][a-z0-9_]*", quote(name))
		case relative.MatchString(name):
			r(path, "%s ends as a comparison does, want a name without %s", quote(name), relative.FindString(name))
		}
		checkDefinition(m.Definitions[name], r.under(path))
	}
}

func checkDefinition(d rollout.Definition, r report) {
	checkOneOf(d.Better, "better", r, "lower", "higher")
	checkOneOf(d.Kind, "kind", r, kinds...)
	needed, ok := fieldsOfKind[d.Kind]
	if !ok {
		return
	}
	for _, f := range []struct{ name, value string }{
		{"events", d.Events}, {"trials", d.Trials}, {"sum", d.Sum}, {"count", d.Count}, {"histogram", d.Histogram}, {"query", d.Query},
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
		case f.name == "query":
			checkQuery(f.value, r)
		case !selector.MatchString(f.value):
			r(f.name, "%s, want a metric with labels or without, such as agent_tool_calls_total{outcome=\"error\"}", quote(f.value))
		}
	}
	if d.Kind == "quantile" && !(d.Quantile > 0 && d.Quantile < 1) { // false for NaN
		r("quantile", "%v, want more than 0 and less than 1, such as 0.95", d.Quantile)
	}
	if d.Kind != "quantile" && d.Quantile != 0 {
		r("quantile", "is not for kind: %s, which has %s", d.Kind, strings.Join(needed, " and "))
	}
}

const queryFields = "{{.Agent}}, {{.Version}} or {{.Window}}"

// checkQuery wants a template that only fills in names: nothing that loops, calls or decides.
func checkQuery(query string, r report) {
	tree := parse.New("query")
	tree.Mode = parse.SkipFuncCheck
	if _, err := tree.Parse(query, "{{", "}}", map[string]*parse.Tree{}); err != nil {
		text := strings.TrimPrefix(err.Error(), "template: query:")
		r("query", "not a template (line %s), want text with %s", text, queryFields)
		return
	}
	if tree.Root == nil {
		return
	}
	for _, node := range tree.Root.Nodes {
		if node.Type() != parse.NodeText && !fillsIn(node) {
			r("query", "%s, want %s only", clip(node.String()), queryFields)
			return
		}
	}
}

// fillsIn reports whether a node of a template is one of queryFields.
func fillsIn(node parse.Node) bool {
	action, ok := node.(*parse.ActionNode)
	if !ok || len(action.Pipe.Decl) > 0 || len(action.Pipe.Cmds) != 1 || len(action.Pipe.Cmds[0].Args) != 1 {
		return false
	}
	field, ok := action.Pipe.Cmds[0].Args[0].(*parse.FieldNode)
	return ok && len(field.Ident) == 1 && slices.Contains([]string{"Agent", "Version", "Window"}, field.Ident[0])
}
