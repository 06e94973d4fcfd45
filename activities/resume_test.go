package activities_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/temporal"
	"pgregory.net/rapid"

	"github.com/aviary-rollouts/aviary/rollout"
)

func TestNoDataClockRestarts(t *testing.T) {
	t.Parallel()
	w, r := newWorld(), request()
	r.Slice, r.Gate = rollout.Duration(time.Hour), false
	w.canary.silentFrom, w.canary.silentUntil = 1, 10*time.Hour
	for i := 1; i <= 3; i++ {
		got := w.observe(t, r)
		if want := time.Duration(i) * 5 * time.Minute; got.Finding != rollout.FoundNoData || w.since() != want {
			t.Fatalf("found %s after %s, want it after %s", got.Finding, w.since(), want)
		}
		r.Cursor = got.Cursor
	}
	// An outage of Aviary itself says nothing about the canary: the lease had run out.
	w.pass(2 * time.Hour)
	before := w.since()
	if got := w.observe(t, r); w.since()-before != 5*time.Minute {
		t.Errorf("found %s %s after an outage", got.Finding, w.since()-before)
	}
}

// TestMeasureFirst: what happened during an outage counts before anything is decided, and its time does not count.
func TestMeasureFirst(t *testing.T) {
	t.Parallel()
	w, r := newWorld(), request()
	r.Slice = rollout.Duration(5 * time.Minute)
	first := w.observe(t, r)
	if first.Finding != rollout.FoundNothing || first.Observed != rollout.Duration(5*time.Minute) {
		t.Fatalf("%s after %s", first.Finding, first.Observed)
	}
	w.canary.unsafeFrom = 20 * time.Minute
	w.pass(40 * time.Minute)
	r.Cursor, r.Remaining, r.Slice = first.Cursor, 0, rollout.Duration(10*time.Second)
	second := w.observe(t, r)
	if second.Finding != rollout.FoundSafety || w.since() != 45*time.Minute {
		t.Errorf("found %s at %s", second.Finding, w.since())
	}
	if second.Observed != 0 || second.Before.Canary != 40*60*10 {
		t.Errorf("observed %s, %v requests not compared", second.Observed, second.Before)
	}
	if len(w.applied) != 31 {
		t.Errorf("renewed %d times: the violation came first", len(w.applied))
	}
}

// TestTheOldWeightsPollIsClosedFirst: at a weight change the requests in between are neither lost nor doubled.
func TestTheOldWeightsPollIsClosedFirst(t *testing.T) {
	t.Parallel()
	w, r := newWorld(), request()
	first := w.observe(t, r)
	w.pass(1500 * time.Millisecond) // the shift
	w.weight, w.revision = 5000, 4
	r.Stage, r.Route.Weight, r.Route.Revision, r.Cursor = 1, 5000, 4, first.Cursor
	second := w.observe(t, r)
	total := first.Requests.Add(second.Before).Add(second.Requests)
	if second.Before.Canary == 0 {
		t.Error("nothing is told of the poll that closes the old weight")
	}
	if want := w.canary.counters(w.since())[0]; total.Canary != want || second.Finding != rollout.FoundReady {
		t.Errorf("%v of %v canary requests, found %s because %q", total.Canary, want, second.Finding, second.Reason)
	}
	if second.Observed != rollout.Duration(10*time.Minute) {
		t.Errorf("observed %s of the new stage", second.Observed)
	}
}

// TestTheOldWeightsPollIsLate: while the poll of the stage before is not closed, nothing is said of the new one.
func TestTheOldWeightsPollIsLate(t *testing.T) {
	t.Parallel()
	w, r := newWorld(), request()
	first := w.observe(t, r)
	w.weight, w.revision = 5000, 4
	r.Stage, r.Route.Weight, r.Route.Revision, r.Cursor = 1, 5000, 4, first.Cursor
	w.source = func(since time.Duration) error {
		if since < 12*time.Minute {
			return errors.New("connection refused")
		}
		return nil
	}
	second := w.observe(t, r)
	if second.Finding != rollout.FoundSource || second.Gate != rollout.NoData || second.Verdict != rollout.NoData || second.Requests.Canary != 0 {
		t.Fatalf("found %s, verdict %s, gate %s, %v", second.Finding, second.Verdict, second.Gate, second.Requests)
	}
	w.pass(2 * time.Minute)
	r.Cursor, r.SourceDown = second.Cursor, second.SourceDown
	third := w.observe(t, r)
	total := first.Requests.Add(third.Before).Add(third.Requests)
	if want := w.canary.counters(w.since())[0]; third.Finding != rollout.FoundSource || total.Canary != want {
		t.Fatalf("found %s, %v of %v requests", third.Finding, total.Canary, want)
	}
	// The late poll held two weights: it is counted, and not taken for the new stage's.
	if n, late := third.Evidence[0].Canary.N, third.Before.Canary; n >= late {
		t.Errorf("the new stage's evidence is of %v canary requests, of which the late poll had %v", n, late)
	}
}

// TestCrashes: cut at any poll, before or after its answer counted, and resumed from any late heartbeat, a slice ends the same.
func TestCrashes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		canary := behaviour{rps: 10, failing: rapid.SampledFrom([]float64{0.01, 0.3}).Draw(t, "failing"), failsFrom: time.Minute}
		if rapid.Bool().Draw(t, "unsafe") {
			canary.unsafeFrom = 150 * time.Second
		}
		whole, short := newWorld(), request()
		short.Slice, short.Remaining = rollout.Duration(4*time.Minute), rollout.Duration(4*time.Minute)
		whole.canary = canary
		want := whole.observe(t, short)

		w := newWorld()
		w.canary = canary
		var heartbeat json.RawMessage
		for range rapid.IntRange(1, 4).Draw(t, "crashes") {
			ctx, cancel := context.WithCancel(context.Background())
			try := attempt{name: "Observe", ctx: ctx, heartbeat: heartbeat}
			cut := w.samples + rapid.IntRange(1, 12).Draw(t, "poll")
			if rapid.Bool().Draw(t, "while waiting") {
				w.onWait = func(time.Duration) {
					if w.samples >= cut {
						cancel()
					}
				}
			} else {
				w.onSample = func(n int) {
					if n == cut {
						cancel()
					}
				}
			}
			var early rollout.ObserveResult
			err := try.run(t, w.config(), short, &early)
			cancel()
			w.onSample, w.onWait = nil, nil
			if err == nil {
				compare(t, whole, want, w, early)
				return
			}
			if n := len(try.beats); n > 0 {
				heartbeat = try.beats[max(0, n-1-rapid.IntRange(0, 2).Draw(t, "heartbeats lost"))]
			}
		}
		var got rollout.ObserveResult
		if err := (&attempt{name: "Observe", heartbeat: heartbeat}).run(t, w.config(), short, &got); err != nil {
			t.Fatalf("the last attempt: %v", err)
		}
		compare(t, whole, want, w, got)
	})
}

// compare holds a slice that was cut against the whole one. An attempt polls as soon as it begins, so it may find the same a little
// earlier; it is never later.
func compare(t *rapid.T, whole *world, want rollout.ObserveResult, w *world, got rollout.ObserveResult) {
	t.Helper()
	early := whole.since() - w.since()
	if got.Finding != want.Finding || got.Verdict != want.Verdict || got.Gate != want.Gate || early < 0 || early >= 10*time.Second {
		t.Fatalf("found %s at %s, %s/%s; uncut it is %s at %s, %s/%s", got.Finding, w.since(), got.Verdict, got.Gate,
			want.Finding, whole.since(), want.Verdict, want.Gate)
	}
	requests := rollout.Requests{Stable: w.stable.counters(w.since())[0], Canary: w.canary.counters(w.since())[0]}
	if got.Requests != requests || got.Observed.Std() != w.since() {
		t.Fatalf("%v requests in %s, want %v in %s", got.Requests, got.Observed, requests, w.since())
	}
	if early > 0 {
		return
	}
	for i := range want.Evidence {
		if w, g := want.Evidence[i], got.Evidence[i]; w.Canary.N != g.Canary.N || w.Canary.X != g.Canary.X || w.Stable.N != g.Stable.N {
			t.Fatalf("%s: %v against %v; uncut %v against %v", w.Check, g.Canary, g.Stable, w.Canary, w.Stable)
		}
	}
}

// TestOutages: whatever the outages between attempts, every request is counted once, and no outage counts as watched.
func TestOutages(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		w.canary.failing = 0.005 // by the raw rule, a handful of requests may look like a violation
		r := request()
		var heartbeat json.RawMessage
		away := time.Duration(0)
		for i := range rapid.IntRange(1, 3).Draw(t, "outages") {
			ctx, cancel := context.WithCancel(context.Background())
			cut := w.samples + rapid.IntRange(1, 10).Draw(t, "poll")
			w.onWait = func(time.Duration) {
				if w.samples >= cut {
					cancel()
				}
			}
			try := attempt{name: "Observe", ctx: ctx, heartbeat: heartbeat}
			var early rollout.ObserveResult
			if err := try.run(t, w.config(), r, &early); err == nil {
				t.Fatalf("attempt %d ended by itself: %s, %s", i, early.Finding, early.Reason)
			}
			cancel()
			heartbeat = try.beats[len(try.beats)-1]
			d := time.Duration(rapid.IntRange(31, 120).Draw(t, "outage")) * time.Second
			w.pass(d)
			away += d
		}
		w.onWait = nil
		var got rollout.ObserveResult
		if err := (&attempt{name: "Observe", heartbeat: heartbeat}).run(t, w.config(), r, &got); err != nil {
			t.Fatal(err)
		}
		if want := w.canary.counters(w.since())[0]; got.Requests.Add(got.Before).Canary != want {
			t.Fatalf("%v and %v of %v requests", got.Requests.Canary, got.Before.Canary, want)
		}
		if got.Finding != rollout.FoundNothing || got.Observed.Std() > w.since()-away {
			t.Fatalf("found %s, observed %s of %s with %s away", got.Finding, got.Observed, w.since(), away)
		}
	})
}

func TestDraining(t *testing.T) {
	t.Parallel()
	w := newWorld()
	stop := make(chan struct{})
	w.onWait = func(since time.Duration) {
		if since == 2*time.Minute {
			close(stop)
		}
	}
	try := attempt{name: "Observe", stop: stop}
	err := try.run(t, w.config(), request(), nil)
	var app *temporal.ApplicationError
	if !errors.As(err, &app) || app.Type() != rollout.ErrWorkerDraining || app.NonRetryable() ||
		app.NextRetryDelay() != time.Millisecond || app.Category() != temporal.ApplicationErrorCategoryBenign {
		t.Fatalf("got %v", err)
	}
	if w.since() != 2*time.Minute {
		t.Errorf("it left after %s", w.since())
	}
	w.onWait = nil
	var got rollout.ObserveResult
	if err := (&attempt{name: "Observe", heartbeat: try.beats[len(try.beats)-1]}).run(t, w.config(), request(), &got); err != nil {
		t.Fatal(err)
	}
	if got.Finding != rollout.FoundReady || got.Requests.Canary != 6000 || got.Observed != rollout.Duration(10*time.Minute) || w.since() != 10*time.Minute {
		t.Errorf("another goes on: %s with %v in %s, at %s", got.Finding, got.Requests, got.Observed, w.since())
	}
}

func TestCancelIsPrompt(t *testing.T) {
	t.Parallel()
	for name, hang := range map[string]bool{"while waiting": false, "while the source hangs": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld()
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			released := make(chan struct{})
			defer close(released)
			if hang {
				w.onSample = func(n int) {
					if n == 3 {
						cancel()
						<-released // it does not heed its context
					}
				}
			} else {
				w.onWait = func(time.Duration) { cancel() }
			}
			err := (&attempt{name: "Observe", ctx: ctx}).run(t, w.config(), request(), nil)
			if err == nil || !strings.Contains(strings.ToLower(err.Error()), "cancel") {
				t.Errorf("got %v", err)
			}
			if limit := 20 * time.Second; w.since() > limit {
				t.Errorf("it left after %s", w.since())
			}
		})
	}
}

// TestKilledForLongerThanTheLease: the first heartbeat, which may be the only one that was sent, knows since when nobody renewed.
func TestKilledForLongerThanTheLease(t *testing.T) {
	t.Parallel()
	w, r := newWorld(), request()
	ctx, cancel := context.WithCancel(t.Context())
	w.onWait = func(time.Duration) { cancel() }
	try := attempt{name: "Observe", ctx: ctx}
	if err := try.run(t, w.config(), r, nil); err == nil || len(try.beats) == 0 {
		t.Fatalf("it ended by itself, or without a heartbeat: %v", err)
	}
	w.onWait = nil
	w.pass(10 * time.Minute)
	w.expired = true
	r.Slice = rollout.Duration(11 * time.Minute)
	var got rollout.ObserveResult
	if err := (&attempt{name: "Observe", heartbeat: try.beats[0]}).run(t, w.config(), r, &got); err != nil {
		t.Fatal(err)
	}
	if got.Before.Canary < 6000 || got.Requests.Add(got.Before).Canary != 10*w.since().Seconds() || got.Mismatch != "" {
		t.Errorf("requests %v, before %v after %s, mismatch %q", got.Requests, got.Before, w.since(), got.Mismatch)
	}
}
