package app

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aviary-rollouts/aviary/activities/metrics"
	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/config"
	"github.com/aviary-rollouts/aviary/rollout"
)

// growing is a source whose counters grow by the same at every sample.
type growing struct{ cursors []string }

func (c *growing) Sample(_ context.Context, r metrics.Request) (metrics.Samples, error) {
	c.cursors = append(c.cursors, string(r.Cursor))
	out := metrics.Samples{Cursor: []byte{'0' + byte(len(c.cursors))}, Metrics: map[string]analysis.Sample{}}
	if len(r.Cursor) > 0 {
		out.Requests = rollout.Requests{Stable: 90, Canary: 10}
		out.Metrics["error_rate"] = analysis.Sample{Stable: analysis.Counts{N: 90, X: 2}}
	}
	return out, nil
}

func TestWatchNow(t *testing.T) {
	t.Parallel()
	source := &growing{}
	errorRate, _ := analysis.Preset("error_rate")
	q := PresentQuery{Agent: "a", Stable: "v1", Canary: "v2", Metrics: []analysis.Metric{errorRate}, Window: 40 * time.Millisecond, Step: 10 * time.Millisecond}
	polls, err := watchNow(t.Context(), source, q)
	if err != nil || len(polls) != 4 {
		t.Fatalf("%d polls, %v; want 4", len(polls), err)
	}
	if got := strings.Join(source.cursors, ","); got != ",1,2,3,4" {
		t.Errorf("cursors %q, want each that of the sample before", got)
	}
	for i, p := range polls {
		if p.Number != int64(i) || p.Requests.Stable != 90 || p.Samples["error_rate"].Stable.X != 2 {
			t.Errorf("poll %d: %+v", i, p)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	q.Window, q.Step = time.Hour, time.Minute
	if _, err := watchNow(ctx, source, q); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want it to stop", err)
	}
}

// A Prometheus is asked for its past, at once.
func TestPresentRefuses(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_772_366_400, 0)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, `{"status":"error","errorType":"bad_data","error":"nothing here"}`, http.StatusUnprocessableEntity)
	}))
	t.Cleanup(srv.Close)
	errorRate, _ := analysis.Preset("error_rate")
	q := PresentQuery{
		Target: config.MetricsTarget{Provider: config.ProviderPrometheus, Address: srv.URL}, Agent: "a", Stable: "v1", Canary: "v2",
		Metrics: []analysis.Metric{errorRate}, Window: 10 * time.Minute, Step: 10 * time.Second, Now: now,
	}
	if _, _, err := Present(t.Context(), q); err == nil || !strings.Contains(err.Error(), "nothing here") {
		t.Errorf("%v, want what Prometheus says", err)
	}
	q.Target.Provider = "abacus"
	if _, _, err := Present(t.Context(), q); err == nil || !strings.Contains(err.Error(), `unknown provider "abacus"`) {
		t.Errorf("%v, want the providers that are known", err)
	}
}
