package activities_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.temporal.io/sdk/temporal"

	"github.com/aviary-rollouts/aviary/activities/metrics"
	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/rollout"
)

// timed is judged with the latency beside it.
func timed(s rollout.Spec) (analysis.Config, error) {
	config, err := judged(s)
	slow, err2 := analysis.ParseCheck("p95_latency_increase < 0.5")
	m, _ := analysis.Preset("p95_latency")
	config.Metrics = append(config.Metrics, m)
	config.Checks = append(config.Checks, analysis.RoleCheck{Check: slow, Role: analysis.RoleGuard, Stage: analysis.EveryStage})
	return config, errors.Join(err, err2)
}

// watch observes one slice of a world that measures how long requests take.
func (w *world) watch(t *testing.T, r rollout.ObserveRequest) rollout.ObserveResult {
	t.Helper()
	var out rollout.ObserveResult
	config := w.config()
	config.Analysis = timed
	if err := (&attempt{name: "Observe"}).run(t, config, r, &out); err != nil {
		t.Fatalf("observe: %v", err)
	}
	return out
}

func seconds(n int) *rollout.Duration {
	return new(rollout.Duration(n) * rollout.Duration(time.Second))
}

// compared is how many of the canary's requests were compared.
func compared(t *testing.T, r rollout.ObserveResult) float64 {
	t.Helper()
	for _, e := range r.Evidence {
		if e.Metric == "error_rate" {
			return e.Canary.N
		}
	}
	t.Fatalf("no evidence of the error rate: %+v", r)
	return 0
}

func TestSettling(t *testing.T) {
	t.Parallel()
	const shift = 10 * time.Second // from Validate's position to the first poll
	for name, tc := range map[string]struct {
		settle  *rollout.Duration
		takes   time.Duration
		ask     func(*rollout.ObserveRequest)
		world   func(*world)
		want    rollout.Finding
		at      time.Duration
		counted float64 // 10 a second
	}{
		"none":                                 {settle: seconds(0), takes: time.Minute, want: rollout.FoundReady, at: 10 * time.Minute, counted: 6000},
		"half a minute":                        {settle: seconds(30), want: rollout.FoundReady, at: 10 * time.Minute, counted: 5700},
		"a poll that lies in it in part":       {settle: seconds(31), want: rollout.FoundReady, at: 10 * time.Minute, counted: 5600},
		"numbers of an older scrape":           {settle: seconds(30), world: func(w *world) { w.behind = 15 * time.Second }, want: rollout.FoundReady, at: 10 * time.Minute, counted: 5500},
		"nobody knows how long requests take":  {want: rollout.FoundReady, at: 10 * time.Minute, counted: 6000},
		"by the durations of requests":         {takes: 12 * time.Second, want: rollout.FoundReady, at: 10 * time.Minute, counted: 5800},
		"of very long requests":                {takes: time.Hour, want: rollout.FoundNothing, at: 10 * time.Minute, counted: 0},
		"of very long requests, for some time": {takes: time.Hour, ask: func(r *rollout.ObserveRequest) { r.Slice *= 2 }, want: rollout.FoundReady, at: 10*time.Minute + 10*time.Second, counted: 100},
		"a stage without a duration waits for the first comparison": {
			settle: seconds(30), ask: func(r *rollout.ObserveRequest) { r.Remaining, r.Slice = 0, rollout.Duration(10*time.Second) },
			want: rollout.FoundReady, at: 40 * time.Second, counted: 100,
		},
		"a safety violation does not wait": {
			settle: seconds(300), world: func(w *world) { w.canary.unsafeFrom = shift + 15*time.Second }, want: rollout.FoundSafety, at: 20 * time.Second,
		},
		"a violation does": {
			settle: seconds(60), world: func(w *world) { w.canary.failing = 0.4 }, want: rollout.FoundViolation, at: 70 * time.Second, counted: 100,
		},
		"a cold start is forgiven": {
			settle: seconds(60), world: func(w *world) { w.canary.failing, w.canary.failsUntil = 0.4, shift+60*time.Second },
			want: rollout.FoundReady, at: 10 * time.Minute, counted: 5400,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, r := newWorld(), request()
			w.takes, r.Spec.Analysis.Settle = tc.takes, tc.settle
			r.Cursor = json.RawMessage(`{"v":1,"source":0}`) // as Validate leaves it
			w.pass(shift)
			if tc.ask != nil {
				tc.ask(&r)
			}
			if tc.world != nil {
				tc.world(w)
			}
			got := w.watch(t, r)
			took := w.since() - shift
			if got.Finding != tc.want || took != tc.at {
				t.Errorf("found %s (%s) after %s, want %s after %s", got.Finding, got.Reason, took, tc.want, tc.at)
			}
			if n := compared(t, got); n != tc.counted {
				t.Errorf("%v canary requests were compared, want %v", n, tc.counted)
			}
			if got.Observed.Std() != took || got.Requests.Canary != tc.counted || got.Requests.Add(got.Before).Canary != 10*w.since().Seconds() {
				t.Errorf("observed %s of %s, requests %v and before %v: the time counts as watched, the requests don't for the stage", got.Observed, took, got.Requests, got.Before)
			}
		})
	}
}

// TestEveryWeightSettles: the second weight settles as the first did, and a slice in the middle of it goes on with it.
func TestEveryWeightSettles(t *testing.T) {
	t.Parallel()
	w, r := newWorld(), request()
	r.Spec.Analysis.Settle = seconds(40)
	r.Slice = rollout.Duration(5 * time.Minute)
	first := w.observe(t, r)
	w.pass(2 * time.Second)
	w.weight, w.revision = 5000, 4
	r.Stage, r.Route.Weight, r.Route.Revision, r.Cursor, r.Slice = 1, 5000, 4, first.Cursor, rollout.Duration(30*time.Second)
	second := w.observe(t, r)
	if second.Gate != rollout.NoData || second.Settling != rollout.Duration(10*time.Second) || second.Before.Canary != 320 || compared(t, second) != 0 {
		t.Errorf("in the middle of it: gate %s, %v left out, %v compared", second.Gate, second.Before, compared(t, second))
	}
	r.Cursor, r.Slice = second.Cursor, rollout.Duration(time.Minute)
	if third := w.observe(t, r); compared(t, third) != 500 || third.Settling != 0 {
		t.Errorf("after it: %v compared, want the last 50 s of 60", compared(t, third))
	}
	// The same weight in a stage of its own is no change.
	r.Stage, r.Route.Revision = 0, 5
	fourth := w.observe(t, r)
	if n := compared(t, fourth); n != 600 {
		t.Errorf("at the same weight: %v compared, want all 600", n)
	}
}

// TestOldCursorsAreNotSettling: a rollout in flight goes on over an upgrade in the middle of a stage.
func TestOldCursorsAreNotSettling(t *testing.T) {
	t.Parallel()
	w, r := newWorld(), request()
	r.Slice = rollout.Duration(time.Minute)
	first := w.observe(t, r)
	var old map[string]json.RawMessage
	if err := json.Unmarshal(first.Cursor, &old); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"change", "kept"} {
		if _, ok := old[key]; !ok {
			t.Errorf("the cursor has no %s: %s", key, first.Cursor)
		}
		delete(old, key)
	}
	r.Cursor, _ = json.Marshal(old)
	r.Spec.Analysis.Settle = seconds(600)
	if second := w.observe(t, r); compared(t, second) != 1200 {
		t.Errorf("%v compared, want both minutes", compared(t, second))
	}
}

// TestCrashWhileSettling: cut anywhere, the same is compared.
func TestCrashWhileSettling(t *testing.T) {
	t.Parallel()
	r := request()
	r.Spec.Analysis.Settle = seconds(30)
	r.Slice = rollout.Duration(2 * time.Minute)
	for cut := 1; cut <= 6; cut++ {
		for _, waiting := range []bool{false, true} {
			w := newWorld()
			ctx, cancel := context.WithCancel(t.Context())
			crash := func(n int) {
				if n == cut {
					cancel()
				}
			}
			if waiting {
				w.onWait = func(time.Duration) { crash(w.samples) }
			} else {
				w.onSample = crash
			}
			try := attempt{name: "Observe", ctx: ctx}
			if err := try.run(t, w.config(), r, nil); err == nil {
				t.Fatalf("cut at poll %d: it went on to its end", cut)
			}
			w.onWait, w.onSample = nil, nil
			next := attempt{name: "Observe"}
			if len(try.beats) > 0 {
				next.heartbeat = try.beats[len(try.beats)-1]
			}
			var got rollout.ObserveResult
			if err := next.run(t, w.config(), r, &got); err != nil {
				t.Fatal(err)
			}
			if n := compared(t, got); n != 900 || got.Requests.Canary != 900 || got.Before.Canary != 300 {
				t.Errorf("cut at poll %d (waiting: %t): %v compared, requests %v, before %v; want 900 of 1200", cut, waiting, n, got.Requests, got.Before)
			}
		}
	}
}

// TestAfterTheLeaseRanOut: while nobody renewed, the canary may have had no traffic: neither its share nor its numbers are compared, and it
// settles anew.
func TestAfterTheLeaseRanOut(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		lease, away time.Duration
		mismatch    bool
		counted     float64
	}{
		"with a lease":              {2 * time.Minute, 40 * time.Minute, false, 3000 + 600 - 300},
		"a little longer than that": {2 * time.Minute, 2*time.Minute + 10*time.Second, false, 3000 + 600 - 300},
		"without a lease":           {0, 40 * time.Minute, true, 3000 + 40*600},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, r := newWorld(), request()
			r.Route.Lease, r.Slice, r.Gate = rollout.Duration(tc.lease), rollout.Duration(5*time.Minute), false
			first := w.observe(t, r)
			w.pass(tc.away)
			back := w.since()
			w.expired = tc.lease > 0
			w.share = func(since time.Duration) float64 {
				if since <= back {
					return 0.0025 // of 40 minutes, 2 with traffic
				}
				return 0.05
			}
			r.Cursor, r.Slice, r.Spec.Analysis.Settle = first.Cursor, rollout.Duration(time.Minute), seconds(30)
			second := w.observe(t, r)
			if (second.Mismatch != "") != tc.mismatch {
				t.Errorf("mismatch %q", second.Mismatch)
			}
			if n := compared(t, second); n != tc.counted {
				t.Errorf("%v compared, want %v", n, tc.counted)
			}
		})
	}
}

// TestSettlingOverAClockThatWentBack: what was left to settle is not stretched by it.
func TestSettlingOverAClockThatWentBack(t *testing.T) {
	t.Parallel()
	w, r := newWorld(), request()
	r.Spec.Analysis.Settle = seconds(30)
	w.pass(3 * time.Hour)
	r.Slice, r.Gate = rollout.Duration(10*time.Second), false
	first := w.observe(t, r)
	w.pass(-2 * time.Hour)
	r.Cursor, r.Slice = first.Cursor, rollout.Duration(2*time.Minute)
	if second := w.observe(t, r); compared(t, second) < 800 || second.Settling != 0 {
		t.Errorf("%v compared in two minutes, %s left to settle", compared(t, second), second.Settling)
	}
}

// TestNewerMemoryIsLeftToANewerWorker: in the middle of an upgrade a canary is not taken back because this worker is the older one.
func TestNewerMemoryIsLeftToANewerWorker(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		cursor, heartbeat string
		source            error
		want              string
	}{
		"a cursor":              {cursor: `{"v":99,"poll":"another form"}`, want: "99"},
		"a heartbeat":           {heartbeat: `{"v":2}`, want: "heartbeat"},
		"statistics":            {cursor: `{"v":1,"engine":{"version":99}}`, want: "statistics"},
		"the source's position": {source: fmt.Errorf("sample: %w", metrics.ErrNewer), want: "position"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, r := newWorld(), request()
			r.Cursor = json.RawMessage(tc.cursor)
			if tc.source != nil {
				w.source = func(time.Duration) error { return tc.source }
			}
			try := attempt{name: "Observe"}
			if tc.heartbeat != "" {
				try.heartbeat = json.RawMessage(tc.heartbeat)
			}
			err := try.run(t, w.config(), r, nil)
			var app *temporal.ApplicationError
			if !errors.As(err, &app) || app.NonRetryable() || app.Type() != rollout.ErrWorkerDraining || app.NextRetryDelay() != 5*time.Second ||
				app.Category() != temporal.ApplicationErrorCategoryBenign {
				t.Fatalf("got %v, want a benign error to try again after", err)
			}
			if !strings.Contains(app.Message(), "older") || !strings.Contains(app.Message(), tc.want) {
				t.Errorf("%q does not say that this worker is older, and than what", app.Message())
			}
			if len(try.beats) > 0 {
				t.Errorf("it overwrote the heartbeat with %s", try.beats[0])
			}
		})
	}
}

// crooked is a source with counts that fall.
type crooked struct{ *world }

func (c crooked) Sample(ctx context.Context, request metrics.Request) (metrics.Samples, error) {
	out, err := c.world.Sample(ctx, request)
	if err == nil {
		out.Metrics["error_rate"] = analysis.Sample{Canary: analysis.Counts{N: -1}}
	}
	return out, err
}

func TestUncountedSamplesShow(t *testing.T) {
	t.Parallel()
	w, r := newWorld(), request()
	r.Slice, r.Gate = rollout.Duration(time.Minute), false
	config := w.config()
	registry := prometheus.NewRegistry()
	config.Registerer = registry
	config.Providers["router"]["default"] = crooked{w}
	if err := (&attempt{name: "Observe"}).run(t, config, r, nil); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "aviary_samples_uncounted_total" {
			if n := f.Metric[0].GetCounter().GetValue(); n != 6 {
				t.Errorf("%v samples, want 6: one a poll", n)
			}
			return
		}
	}
	t.Error("no metric says so")
}
