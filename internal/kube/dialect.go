package kube

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/aviary-rollouts/aviary/rollout"
)

// Dialect is how a data plane writes weights down.
type Dialect struct {
	Kinds        []Kind   // the first is the usual one
	Rules        []string // path of the list of rules in an object
	RuleWord     string   // what people call a rule
	Destinations string   // key of a rule's list of destinations
	Total        int64    // what the two weights add up to; divides, or is, rollout.FullWeight
	Unset        int64    // weight of a destination that has none written down
	// Destination is where an entry of the list sends requests. Errors: something that no rollout can name.
	Destination func(entry map[string]any) (rollout.Destination, error)
	// Settled is why the data plane does not act on an object as it stands, in its JSON, or nil. Nil where objects tell
	// nothing of that.
	Settled func(object map[string]any) error
}

// Kind is a kind of objects that hold weights.
type Kind struct {
	Name     string   // VirtualService
	Short    string   // vs, for names of leases
	Group    string   // networking.istio.io
	Versions []string // best first
	Resource string   // virtualservices
}

func (k Kind) resource(version int) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: k.Group, Version: k.Versions[version], Resource: k.Resource}
}

// unit is how many basis points one of a weight's steps has.
func (d Dialect) unit() rollout.Weight { return rollout.FullWeight / rollout.Weight(d.Total) }

// Step is the least step of a weight.
func (d Dialect) Step() rollout.Weight { return d.unit() }

// place is a destination of a rule with its weight.
type place struct {
	at     rollout.Destination
	weight int64
}

// rule is a named rule as it was found in an object.
type rule struct {
	name   string
	path   string // JSON Pointer of the rule
	list   string // JSON Pointer of its destinations
	raw    any    // those as they were read, to test against
	places []place
}

// find is the rule of an object by its name. Errors say what is there instead.
func (d Dialect) find(object *unstructured.Unstructured, name string) (rule, error) {
	found, _, _ := unstructured.NestedFieldNoCopy(object.Object, d.Rules...)
	rules, _ := found.([]any)
	var names []string
	at := -1
	for i, r := range rules {
		fields, _ := r.(map[string]any)
		has, _ := fields["name"].(string)
		if has == "" {
			has = "one without a name"
		} else if has == name {
			if at >= 0 {
				return rule{}, fmt.Errorf("%s has two %ss named %q, want one", title(object), d.RuleWord, name)
			}
			at = i
		}
		names = append(names, has)
	}
	if at < 0 {
		has := "it has none"
		if len(names) > 0 {
			has = "it has " + strings.Join(names, ", ")
		}
		return rule{}, fmt.Errorf("%s has no %s named %q, %s", title(object), d.RuleWord, name, has)
	}
	return d.read(object, name, at, rules[at].(map[string]any))
}

func (d Dialect) read(object *unstructured.Unstructured, name string, at int, fields map[string]any) (rule, error) {
	path := "/" + strings.Join(d.Rules, "/") + fmt.Sprintf("/%d", at)
	r := rule{name: name, path: path, list: path + "/" + d.Destinations, raw: fields[d.Destinations]}
	entries, _ := r.raw.([]any)
	for _, e := range entries {
		entry, _ := e.(map[string]any)
		to, err := d.Destination(entry)
		if err != nil {
			return rule{}, fmt.Errorf("%s, %s %q: %w", title(object), d.RuleWord, name, err)
		}
		weight, ok := number(entry["weight"])
		if !ok {
			weight = d.Unset
		}
		if weight < 0 {
			return rule{}, fmt.Errorf("%s, %s %q: weight %d of %s, want 0 or more", title(object), d.RuleWord, name, weight, to)
		}
		r.places = append(r.places, place{to, weight})
	}
	if len(r.places) != 2 || r.places[0].at == r.places[1].at {
		return rule{}, fmt.Errorf("%s, %s %q: it goes to %s, want two destinations, one of stable and one of the canary",
			title(object), d.RuleWord, name, r.words())
	}
	return r, nil
}

// number is a JSON number as an integer.
func number(v any) (int64, bool) {
	switch n := v.(type) {
	case int64:
		return n, true
	case float64:
		return int64(n), float64(int64(n)) == n
	}
	return 0, false
}

// words are the rule's destinations.
func (r rule) words() string {
	if len(r.places) == 0 {
		return "nothing"
	}
	var out []string
	for _, p := range r.places {
		out = append(out, p.at.String())
	}
	return strings.Join(out, ", ")
}

// index is where a destination stands in the rule, or -1.
func (r rule) index(at rollout.Destination) int {
	return slices.IndexFunc(r.places, func(p place) bool { return p.at == at })
}

// between reports whether the rule's destinations are exactly these two.
func (r rule) between(a, b rollout.Destination) bool {
	return a != b && r.index(a) >= 0 && r.index(b) >= 0
}

// share of the requests that a destination gets, and whether any destination gets any. What gets some has at least a basis
// point.
func (r rule) share(at rollout.Destination) (rollout.Weight, bool) {
	total, own := int64(0), int64(0)
	for _, p := range r.places {
		if total += p.weight; p.at == at {
			own = p.weight
		}
	}
	if total == 0 {
		return 0, false
	}
	full := int64(rollout.FullWeight)
	share := (own*full + total/2) / total
	switch {
	case own > 0 && share == 0:
		share = 1
	case own < total && share == full:
		share = full - 1
	}
	return rollout.Weight(share), true
}

// title names an object.
func title(o *unstructured.Unstructured) string {
	return o.GetKind() + " " + o.GetNamespace() + "/" + o.GetName()
}
