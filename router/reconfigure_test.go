package router

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/aviary-rollouts/aviary/router/api"
)

// settings are the test's agents with changes.
func settings(t *testing.T, change func(map[string]AgentOptions)) map[string]AgentOptions {
	t.Helper()
	agents := testOptions(t, nil).Agents
	change(agents)
	return agents
}

func versionsOf(t *testing.T, r *Router, name string) []string {
	t.Helper()
	for _, a := range r.Agents() {
		if a.Name == name {
			return slices.Sorted(maps.Keys(a.Versions))
		}
	}
	return nil
}

func TestReconfigure(t *testing.T) {
	t.Parallel()
	r, _ := newTestRouter(t)
	if _, err := r.PutVersion(agent, "v50", api.Version{URL: "http://127.0.0.1:50"}); err != nil {
		t.Fatal(err)
	}
	mustSet(t, r, canaryRoute(500, 1))
	key := keyFor(t, r, 0, 500)
	pinned := mustDecide(t, r, Request{Key: key})
	pin := string(r.AppendPin(nil, &pinned))

	err := r.Reconfigure(settings(t, func(m map[string]AgentOptions) {
		delete(m[agent].Versions, "v40")
		m[agent].Versions["v44"] = api.Version{URL: "http://127.0.0.1:44"}
		m[agent].Versions["v42"] = api.Version{URL: "http://127.0.0.1:4242"}
		m["billing-agent"] = AgentOptions{Stable: "b1", Versions: map[string]api.Version{"b1": {URL: "http://127.0.0.1:99"}}}
	}))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := versionsOf(t, r, agent), []string{"v41", "v42", "v43", "v44", "v50"}; !slices.Equal(got, want) {
		t.Errorf("versions %v, want %v", got, want)
	}
	d := mustDecide(t, r, Request{Key: key, Pin: pin})
	if d.Version != "v42" || d.Reason != ByPin || d.Target().Port() != "4242" {
		t.Errorf("a pinned conversation got %s at %s by %s", d.Version, d.Target(), d.Reason)
	}
	if o, err := r.Observed(agent); err != nil || o.EffectiveWeight != 500 || o.Owner != canaryRoute(0, 0).Owner {
		t.Errorf("the route is %+v, %v", o, err)
	}
	if d, err := r.Decide("billing-agent", Request{Key: "k"}); err != nil || d.Version != "b1" {
		t.Errorf("the new agent: %+v, %v", d, err)
	}
	if err := r.Reconfigure(settings(t, func(map[string]AgentOptions) {})); err != nil {
		t.Fatal(err)
	}
	if r.Knows("billing-agent") {
		t.Error("an agent that was taken out is still known")
	}
}

func TestReconfigureChangesAllOrNothing(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		before func(*testing.T, *Router)
		change func(map[string]AgentOptions)
		want   string
	}{
		{"the agent of a live rollout", nil, func(m map[string]AgentOptions) { delete(m, agent) }, "can't be taken out"},
		{"its canary", nil, func(m map[string]AgentOptions) { delete(m[agent].Versions, "v42") }, "is the canary of rollout"},
		{"its stable", nil, func(m map[string]AgentOptions) {
			m[agent] = AgentOptions{Stable: "v40", Versions: m[agent].Versions}
		}, "can't become v40"},
		{"its stable's fingerprint", nil, func(m map[string]AgentOptions) {
			m[agent].Versions["v41"] = api.Version{URL: "http://127.0.0.1:1", Fingerprint: "another"}
		}, "new name"},
		{"a promoted version", func(t *testing.T, r *Router) {
			mustSet(t, r, api.Route{Stable: "v42", Owner: canaryRoute(0, 0).Owner, Revision: 2, Promoted: true})
		}, func(m map[string]AgentOptions) { delete(m[agent].Versions, "v42") }, "was promoted"},
		{"side effects while requests are mirrored", func(t *testing.T, r *Router) {
			shadow := canaryRoute(0, 2)
			shadow.Mirror = 1000
			mustSet(t, r, shadow)
		}, func(m map[string]AgentOptions) {
			m[agent] = AgentOptions{Stable: "v41", Versions: m[agent].Versions, SideEffects: true}
		}, "mirrors its requests just now"},
		{"an address that is none", nil, func(m map[string]AgentOptions) { m[agent].Versions["v43"] = api.Version{URL: "ftp://x"} }, "url of version v43"},
		{"a stable version that is none", nil, func(m map[string]AgentOptions) {
			m["other"] = AgentOptions{Stable: "x", Versions: map[string]api.Version{"y": {URL: "http://127.0.0.1:1"}}}
		}, `stable "x"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r, err := New(Options{Clock: newFakeClock(), Agents: settings(t, func(m map[string]AgentOptions) {
				m[agent].Versions["v41"] = api.Version{URL: "http://127.0.0.1:1", Fingerprint: "one"}
			})})
			if err != nil {
				t.Fatal(err)
			}
			mustSet(t, r, canaryRoute(500, 1))
			if tt.before != nil {
				tt.before(t, r)
			}
			before := versionsOf(t, r, agent)
			err = r.Reconfigure(settings(t, func(m map[string]AgentOptions) {
				m[agent].Versions["v99"] = api.Version{URL: "http://127.0.0.1:99"}
				tt.change(m)
			}))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %v, want one with %q", err, tt.want)
			}
			if got := versionsOf(t, r, agent); !slices.Equal(got, before) {
				t.Errorf("versions %v, want %v as before", got, before)
			}
		})
	}
}

func TestReconfigureKeepsAPromotion(t *testing.T) {
	t.Parallel()
	r, _ := newTestRouter(t)
	mustSet(t, r, canaryRoute(500, 1))
	mustSet(t, r, api.Route{Stable: "v42", Owner: canaryRoute(0, 0).Owner, Revision: 2, Promoted: true})
	if err := r.Reconfigure(settings(t, func(map[string]AgentOptions) {})); err != nil {
		t.Fatal(err)
	}
	if got := r.Stable(agent); got != "v42" {
		t.Errorf("stable %s after settings that did not change it, want v42", got)
	}
	err := r.Reconfigure(settings(t, func(m map[string]AgentOptions) {
		m[agent] = AgentOptions{Stable: "v43", Versions: m[agent].Versions}
	}))
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Stable(agent); got != "v43" {
		t.Errorf("stable %s, want v43 as the settings say now", got)
	}
}

func TestVersionsOfSeveralInstances(t *testing.T) {
	t.Parallel()
	r, _ := newTestRouter(t)
	two := api.Version{URLs: []string{"http://127.0.0.1:51", "http://127.0.0.1:52/base"}}
	if _, err := r.PutVersion(agent, "v50", two); err != nil {
		t.Fatal(err)
	}
	for _, a := range r.Agents() {
		if got := a.Versions["v50"]; a.Name == agent && (!slices.Equal(got.URLs, two.URLs) || got.URL != "") {
			t.Errorf("the registry has %+v", got)
		}
	}
	for name, bad := range map[string]api.Version{
		"none": {}, "both": {URL: "http://a", URLs: []string{"http://b"}}, "doubled": {URLs: []string{"http://a", "http://a"}},
		"one is none": {URLs: []string{"http://a", "a"}}, "too many": {URLs: make([]string, maxInstances+1)},
	} {
		if _, err := r.PutVersion(agent, "v51", bad); refusalCode(err) != api.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAgentsWithSideEffectsAreNeverMirrored(t *testing.T) {
	t.Parallel()
	r, err := New(Options{Clock: newFakeClock(), Agents: settings(t, func(m map[string]AgentOptions) {
		m[agent] = AgentOptions{Stable: "v41", Versions: m[agent].Versions, SideEffects: true}
	})})
	if err != nil {
		t.Fatal(err)
	}
	shadow := canaryRoute(0, 1)
	mustSet(t, r, shadow)
	shadow.Mirror, shadow.Revision = 1000, 2
	if _, err := r.SetRoute(agent, shadow); refusalCode(err) != api.CodeInvalid || !strings.Contains(err.Error(), "side effects") {
		t.Errorf("error %v, want it refused for its side effects", err)
	}
}
