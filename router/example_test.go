package router_test

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/aviary-rollouts/aviary/router"
	"github.com/aviary-rollouts/aviary/router/api"
)

// newRouter is a router of one agent with two versions.
func newRouter() *router.Router {
	keys, err := router.NewKeyring(router.Key{ID: "2026-11", Secret: []byte("the same 32 bytes on each replica")})
	if err != nil {
		panic(err)
	}
	r, err := router.New(router.Options{
		Keys: keys,
		Agents: map[string]router.AgentOptions{"support-agent": {
			Stable: "v41",
			Versions: map[string]api.Version{
				"v41": {URL: "http://127.0.0.1:9041", Metadata: map[string]string{"model": "large-3", "prompt": "9f2c"}},
				"v42": {URL: "http://127.0.0.1:9042", Metadata: map[string]string{"model": "large-3", "prompt": "b07e"}},
			},
		}},
	})
	if err != nil {
		panic(err)
	}
	return r
}

// An agent that routes in its own process: it decides, runs that version, and counts what came of it. The control plane sets
// the route through the admin API, which package admin serves from the same process.
func Example() {
	r := newRouter()
	_, err := r.SetRoute("support-agent", api.Route{
		Stable: "v41", Canary: "v42", Weight: 10000, Owner: "canary/support-agent/1", Revision: 1, LeaseMillis: 120_000,
	})
	if err != nil {
		panic(err)
	}

	const conversation = "c-81"
	first, err := r.Decide("support-agent", router.Request{Key: conversation})
	if err != nil {
		panic(err)
	}
	fmt.Println(first.Version, first.Reason, first.NewPin)
	pin := r.AppendPin(nil, &first) // goes back to the client, who sends it with the next turn

	// ... run the version, and count how it went:
	r.Served(&first, conversation)
	tokens := 412.0
	first.Stats().Request(router.Outcome{Code: 200, Latency: 1800 * time.Millisecond, TTFB: 300 * time.Millisecond})
	first.Stats().Feedback(api.Feedback{Task: "completed", Tokens: &tokens})

	// The weight moves, and the conversation stays.
	_, err = r.SetRoute("support-agent", api.Route{
		Stable: "v41", Canary: "v42", Weight: 0, Owner: "canary/support-agent/1", Revision: 2, LeaseMillis: 120_000,
	})
	if err != nil {
		panic(err)
	}
	second, err := r.Decide("support-agent", router.Request{Key: conversation, Pin: string(pin)})
	if err != nil {
		panic(err)
	}
	fmt.Println(second.Version, second.Reason)

	// Output:
	// v42 weight true
	// v42 pin
}

// A rollback with the default policy takes conversations along, and says so.
func ExampleRouter_Decide_rollback() {
	r := newRouter()
	route := api.Route{Stable: "v41", Canary: "v42", Weight: 10000, Owner: "canary/support-agent/1", Revision: 1}
	if _, err := r.SetRoute("support-agent", route); err != nil {
		panic(err)
	}
	d, err := r.Decide("support-agent", router.Request{Key: "c-81"})
	if err != nil {
		panic(err)
	}
	pin := string(r.AppendPin(nil, &d))

	route.Weight, route.Revision, route.Rollback = 0, 2, true
	if _, err := r.SetRoute("support-agent", route); err != nil {
		panic(err)
	}
	d, err = r.Decide("support-agent", router.Request{Key: "c-81", Pin: pin})
	if err != nil {
		panic(err)
	}
	fmt.Printf("%s, migrated from %s\n", d.Version, d.MigratedFrom)
	// Output: v41, migrated from v42
}

// The fence: whoever comes late or second is told who holds the agent.
func ExampleRouter_SetRoute() {
	r := newRouter()
	route := api.Route{Stable: "v41", Canary: "v42", Weight: 500, Owner: "canary/support-agent/1", Revision: 7, LeaseMillis: 120_000}
	if _, err := r.SetRoute("support-agent", route); err != nil {
		panic(err)
	}
	route.Owner, route.Weight = "canary/support-agent/2", 5000
	_, err := r.SetRoute("support-agent", route)
	var conflict *api.Conflict
	if errors.As(err, &conflict) {
		fmt.Println(conflict.Owner, conflict.Revision)
	}
	// Output: canary/support-agent/1 7
}

// Feedback that comes a day later names the conversation's pin, and counts for the version that served it.
func ExampleRouter_Feedback() {
	r := newRouter()
	d, err := r.Decide("support-agent", router.Request{Key: "c-81"})
	if err != nil {
		panic(err)
	}
	rating := 4.0
	f := api.Feedback{Agent: "support-agent", Pin: string(r.AppendPin(nil, &d)), ID: "survey-3391", Satisfaction: &rating}
	for range 2 { // the survey's webhook is sent twice
		result, err := r.Feedback(f)
		if err != nil {
			panic(err)
		}
		fmt.Println(result.Version, result.Duplicate)
	}
	// Output:
	// v41 false
	// v41 true
}

// The counters of all versions, next to the process's own metrics.
func ExampleRouter_Collector() {
	r := newRouter()
	registry := prometheus.NewRegistry()
	registry.MustRegister(r.Collector())
	families, err := registry.Gather()
	if err != nil {
		panic(err)
	}
	for _, f := range families {
		if f.GetName() == "agent_requests_total" {
			fmt.Println(f.GetName(), len(f.GetMetric()), "series")
		}
	}
	// Output: agent_requests_total 2 series
}

// A choice depends on the key and the rollout alone: whoever is in at 5 % is in at 15 %.
func ExampleBucket() {
	const rollout = "canary/support-agent/1"
	for _, key := range []string{"user-1", "user-2", "user-3"} {
		b := router.Bucket(key, rollout)
		fmt.Println(key, b < 500, b < 1500, b < 10000)
	}
	// Output:
	// user-1 false false true
	// user-2 false false true
	// user-3 true true true
}
