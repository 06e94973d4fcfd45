package admin_test

import (
	"context"
	"fmt"
	"net/http/httptest"

	"github.com/aviary-rollouts/aviary/router"
	"github.com/aviary-rollouts/aviary/router/admin"
	"github.com/aviary-rollouts/aviary/router/api"
)

// An agent that routes in its own process serves the admin API on a port of its own, and the worker's settings name it like any
// gateway: gateways: ["http://10.0.0.7:9901"].
func ExampleNew() {
	r, err := router.New(router.Options{Agents: map[string]router.AgentOptions{"support-agent": {
		Stable:   "v41",
		Versions: map[string]api.Version{"v41": {URL: "http://127.0.0.1:9041"}, "v42": {URL: "http://127.0.0.1:9042"}},
	}}})
	if err != nil {
		panic(err)
	}
	const token = "a secret of 16 bytes or more"
	handler, err := admin.New(r, admin.Options{Token: token})
	if err != nil {
		panic(err)
	}
	server := httptest.NewServer(handler) // in earnest an http.Server with timeouts, off the internet
	defer server.Close()

	// What the worker does:
	control, err := api.NewClient(server.URL, token)
	if err != nil {
		panic(err)
	}
	observed, err := control.PutRoute(context.Background(), "support-agent", api.Route{
		Stable: "v41", Canary: "v42", Weight: 500, Owner: "canary/support-agent/1", Revision: 1, LeaseMillis: 120_000,
	})
	if err != nil {
		panic(err)
	}
	fmt.Println(observed.Canary, observed.EffectiveWeight)
	// Output: v42 500
}
