package router_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aviary-rollouts/aviary/activities/metrics"
	"github.com/aviary-rollouts/aviary/activities/metrics/router"
	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/router/api"
)

// TestAddressesOfSeveralGateways: counters of processes that take turns behind one address must never be counted as restarts.
func TestAddressesOfSeveralGateways(t *testing.T) {
	t.Parallel()
	turn := 0
	old := []api.Counters{{Instance: "a", UptimeMillis: 3_600_000}, {Instance: "b", UptimeMillis: 3_600_000}}
	serve := func(next func() api.Counters) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			c := next()
			c.Agent, c.Versions = "support-agent", map[string]api.Counter{"v41": {Requests: 1000}, "v42": {Requests: 50}}
			_ = json.NewEncoder(w).Encode(c)
		}))
		t.Cleanup(s.Close)
		return s.URL
	}
	requests, _ := analysis.Preset("total_requests")
	request := metrics.Request{Agent: "support-agent", Stable: "v41", Canary: "v42", Metrics: []metrics.Metric{{Metric: requests}}}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	balanced, err := router.New([]string{serve(func() api.Counters { turn++; return old[turn%2] })}, "token", nil)
	if err != nil {
		t.Fatal(err)
	}
	first, err := balanced.Sample(ctx, request)
	if err != nil {
		t.Fatal(err)
	}
	request.Cursor = first.Cursor
	if got, err := balanced.Sample(ctx, request); err == nil || !strings.Contains(err.Error(), "more than one gateway") {
		t.Errorf("behind a load balancer: %+v, %v", got.Requests, err)
	}

	request.Cursor = nil
	same := func() api.Counters { return old[0] }
	twice, err := router.New([]string{serve(same), serve(same)}, "token", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := twice.Sample(ctx, request); err == nil || !strings.Contains(err.Error(), "the same gateway") {
		t.Errorf("one gateway twice: %v", err)
	}
}
