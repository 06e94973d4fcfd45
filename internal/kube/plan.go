package kube

import (
	"encoding/json"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/aviary-rollouts/aviary/activities/traffic"
	"github.com/aviary-rollouts/aviary/rollout"
)

// found is an object as it was read.
type found struct {
	object *unstructured.Unstructured
	kind   Kind
	rule   rule
	set    record // what was set last
	known  bool   // there is a record, on the object or, if somebody has removed it there, on the lease
	marked bool   // it is on the object
}

// exposed reports whether the canary gets requests.
func (f found) exposed() bool {
	if !f.known {
		return false
	}
	share, _ := f.rule.share(f.set.canaryAt)
	return share > 0
}

// check refuses a route that can never be applied, whatever the object says.
func (d Dialect) check(route rollout.Route) error {
	switch {
	case !rollout.ValidName(route.Agent):
		return rejected("agent %q: want %s", route.Agent, rollout.NamePattern)
	case !rollout.ValidName(route.Stable):
		return rejected("stable %q: want %s", route.Stable, rollout.NamePattern)
	case route.Canary != "" && !rollout.ValidName(route.Canary):
		return rejected("canary %q: want %s, or none", route.Canary, rollout.NamePattern)
	case route.Weight < 0 || route.Weight > rollout.FullWeight:
		return rejected("weight %d: want basis points from 0 to %d", int(route.Weight), int(rollout.FullWeight))
	case route.Weight%d.unit() != 0:
		return rejected("weight %s is too fine, want multiples of %s", route.Weight, d.unit())
	case route.Weight > 0 && route.Canary == "":
		return rejected("weight %s for no canary, want one, or weight 0", route.Weight)
	case route.Mirror != 0:
		return rejected("mirror %s: this data plane mirrors nothing", route.Mirror)
	case route.Lease < 0:
		return rejected("lease %s: want 0 or more", route.Lease)
	}
	return nil
}

// owned refuses a route whose agent, owner or revision gives way to what the object says. Errors: *traffic.OwnershipLost,
// *traffic.Rejected.
func (f found) owned(route rollout.Route) error {
	if agent := f.object.GetLabels()[AgentLabel]; agent != "" && agent != route.Agent {
		return rejected("%s is the agent %s's by its label %s, not %s's", title(f.object), agent, AgentLabel, route.Agent)
	}
	if !f.known {
		return nil
	}
	lost := &traffic.OwnershipLost{Agent: route.Agent, Owner: f.set.owner, Revision: f.set.revision}
	switch {
	case f.set.owner == route.Owner && f.set.revision > route.Revision:
		return lost
	case f.set.owner != route.Owner && (f.exposed() || route.Rollback || route.Promoted):
		return lost
	}
	return nil
}

// roles are the destinations of stable and canary as route wants them. Without a record they are the rollout file's; from then
// on a version stays where it is, and the other place is the canary's. Errors: *traffic.Rejected.
func (f found) roles(route rollout.Route, file rollout.Object) (stable, canary rollout.Destination, err error) {
	if !f.rule.between(file.Stable, file.Canary) {
		return stable, canary, rejected("%s, rule %q: it goes to %s, the rollout file wants it to go to %s and %s", title(f.object), f.rule.name,
			f.rule.words(), file.Stable, file.Canary)
	}
	if !f.known {
		first, _ := f.rule.share(file.Stable)
		second, _ := f.rule.share(file.Canary)
		if first == 0 && second > 0 && !route.Rollback {
			return stable, canary, rejected("%s, rule %q: all requests go to %s, where the rollout file says that the canary runs; "+
				"want stable and canary of traffic.object the other way round", title(f.object), f.rule.name, file.Canary)
		}
		return file.Stable, file.Canary, nil
	}
	set := f.set
	if !f.rule.between(set.stableAt, set.canaryAt) {
		return stable, canary, rejected("%s, rule %q: it goes to %s, but its annotations say that stable runs on %s and the canary on %s; "+
			"if the rule is right, remove its annotations aviary.dev/* and those of the lease %s", title(f.object), f.rule.name, f.rule.words(),
			set.stableAt, set.canaryAt, leaseName(f.kind, f.object.GetName()))
	}
	switch {
	case route.Stable == set.stable:
		return set.stableAt, set.canaryAt, nil
	case route.Promoted && route.Stable == set.canary, route.Rollback && route.Canary == set.stable:
		return set.canaryAt, set.stableAt, nil
	case route.Rollback:
		return set.stableAt, set.canaryAt, nil
	}
	return stable, canary, rejected("%s: stable is %s, on %s, the rollout says %s", title(f.object), set.stable, set.stableAt, route.Stable)
}

// plan is the record that makes route the state of its agent. Errors: *traffic.OwnershipLost, *traffic.Rejected.
func (f found) plan(route rollout.Route) (record, error) {
	if err := f.owned(route); err != nil {
		return record{}, err
	}
	stable, canary, err := f.roles(route, *route.Object)
	if err != nil {
		return record{}, err
	}
	return record{
		owner: route.Owner, revision: route.Revision, rule: f.rule.name, stable: route.Stable, canary: route.Canary,
		stableAt: stable, canaryAt: canary, weight: route.Weight,
	}, nil
}

// weights that r wants, in the order of the rule's destinations.
func (f found) weights(d Dialect, r record) [2]int64 {
	canary := int64(0)
	if !r.expired {
		canary = int64(r.weight / d.unit())
	}
	out := [2]int64{canary, canary}
	out[f.rule.index(r.stableAt)] = d.Total - canary
	return out
}

// is reports whether the object says r already.
func (f found) is(d Dialect, r record, agent string) bool {
	now := [2]int64{f.rule.places[0].weight, f.rule.places[1].weight}
	return f.marked && f.set == r && f.object.GetLabels()[AgentLabel] == agent && now == f.weights(d, r)
}

// operation is one of JSON Patch (RFC 6902).
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

// patch makes the object say r, unless anything that r was decided by has changed: the object itself, the rule's place and
// name, its destinations and weights, and the owner and revision. Fields of others, such as status, may have.
func (f found) patch(d Dialect, r record, agent string) ([]byte, error) {
	test := func(path string, value any) operation { return operation{"test", path, value} }
	out := []operation{
		test("/metadata/uid", string(f.object.GetUID())), test(f.rule.path+"/name", f.rule.name), test(f.rule.list, f.rule.raw),
	}
	annotations, labels := f.object.GetAnnotations(), f.object.GetLabels()
	if f.marked && labels[AgentLabel] == agent {
		for _, key := range []string{ownerKey, revisionKey} {
			out = append(out, test(annotationPath(key), annotations[key]))
		}
	} else { // nobody's yet: there is nothing of ours to test, and no map that could be added twice
		out = append(out, test("/metadata/resourceVersion", f.object.GetResourceVersion()))
	}
	for i, weight := range f.weights(d, r) {
		if f.rule.places[i].weight != weight {
			out = append(out, operation{"add", f.rule.list + "/" + string(rune('0'+i)) + "/weight", weight})
		}
	}
	if annotations == nil {
		out = append(out, operation{"add", "/metadata/annotations", map[string]string{}})
	}
	want := r.annotations()
	for _, key := range []string{ownerKey, revisionKey, ruleKey, stableKey, stableAtKey, canaryKey, canaryAtKey, weightKey, expiredKey} {
		value, wanted := want[key]
		has, is := annotations[key]
		switch {
		case wanted && (!is || has != value):
			out = append(out, operation{"add", annotationPath(key), value})
		case !wanted && is:
			out = append(out, operation{"remove", annotationPath(key), nil})
		}
	}
	switch {
	case labels == nil:
		out = append(out, operation{"add", "/metadata/labels", map[string]string{AgentLabel: agent}})
	case labels[AgentLabel] != agent:
		out = append(out, operation{"add", "/metadata/labels/" + escape(AgentLabel), agent})
	}
	return json.Marshal(out)
}

func annotationPath(key string) string { return "/metadata/annotations/" + escape(key) }

// escape makes a key a token of a JSON Pointer (RFC 6901).
func escape(key string) string {
	return strings.ReplaceAll(strings.ReplaceAll(key, "~", "~0"), "/", "~1")
}
