package activities_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/temporal"
	"pgregory.net/rapid"

	"github.com/aviary-rollouts/aviary/activities/metrics"
	"github.com/aviary-rollouts/aviary/rollout"
)

func TestObserve(t *testing.T) {
	t.Parallel()
	down := func(from, until time.Duration) func(time.Duration) error {
		return func(since time.Duration) error {
			if since >= from && since < until {
				return errors.New("connection refused")
			}
			return nil
		}
	}
	minutes := func(n int) rollout.Duration { return rollout.Duration(n) * rollout.Duration(time.Minute) }
	for name, tc := range map[string]struct {
		world  func(*world)
		ask    func(*rollout.ObserveRequest)
		want   rollout.Finding
		reason string
		at     time.Duration // when it returned
		check  func(*testing.T, *world, rollout.ObserveResult)
	}{
		"a good canary is ready": {
			want: rollout.FoundReady, at: 10 * time.Minute,
			check: func(t *testing.T, w *world, r rollout.ObserveResult) {
				if r.Observed != minutes(10) || r.Requests != (rollout.Requests{Stable: 24000, Canary: 6000}) || r.Polls != 60 {
					t.Errorf("observed %s, %v in %d polls", r.Observed, r.Requests, r.Polls)
				}
				if r.Verdict != rollout.Met || r.Gate != rollout.Met || len(r.Evidence) != 2 {
					t.Errorf("verdict %s, gate %s, evidence %v", r.Verdict, r.Gate, r.Evidence)
				}
				if n := len(r.Series); n < 20 || n > 30 {
					t.Errorf("%d points", n)
				}
				if len(w.applied) != 61 {
					t.Errorf("the lease was renewed %d times", len(w.applied))
				}
			},
		},
		"without a gate the slice goes to its end": {
			ask:  func(r *rollout.ObserveRequest) { r.Gate, r.Remaining = false, 0 },
			want: rollout.FoundNothing, at: 10 * time.Minute,
		},
		"ready at once when only evidence was missing": {
			ask:  func(r *rollout.ObserveRequest) { r.Remaining = 0; r.Requests.Canary = 49 },
			want: rollout.FoundReady, at: 10 * time.Second,
		},
		"too few requests": {
			world: func(w *world) { w.canary.rps = 0.05 },
			want:  rollout.FoundNothing, at: 10 * time.Minute,
		},
		"a safety violation": {
			world: func(w *world) { w.canary.unsafeFrom = 3*time.Minute + 5*time.Second },
			want:  rollout.FoundSafety, reason: "safety_violations", at: 3*time.Minute + 10*time.Second,
			check: func(t *testing.T, w *world, _ rollout.ObserveResult) {
				if len(w.applied) != 19 {
					t.Errorf("%d renewals: the one after the violation came before the answer", len(w.applied))
				}
			},
		},
		"a safety violation, tolerating others": {
			world: func(w *world) { w.canary.unsafeFrom = time.Minute },
			ask:   func(r *rollout.ObserveRequest) { r.Tolerate, r.Gate = true, false },
			want:  rollout.FoundSafety, at: time.Minute,
		},
		"a violation": {
			world: func(w *world) { w.canary.failing = 0.2; w.canary.failsFrom = 2 * time.Minute },
			want:  rollout.FoundViolation, reason: "error_rate_increase < 0.5 violated: ",
			check: func(t *testing.T, w *world, r rollout.ObserveResult) {
				if w.since() > 4*time.Minute || r.Verdict != rollout.Violated || r.Blame == "" || !strings.Contains(r.Reason, " against ") {
					t.Errorf("after %s: %s, blame %q, %q", w.since(), r.Verdict, r.Blame, r.Reason)
				}
			},
		},
		"a tolerated violation": {
			world: func(w *world) { w.canary.failing = 0.2 },
			ask:   func(r *rollout.ObserveRequest) { r.Tolerate, r.Gate = true, false },
			want:  rollout.FoundNothing, at: 10 * time.Minute,
		},
		"a canary without requests": {
			world: func(w *world) { w.canary.silentFrom, w.canary.silentUntil = time.Minute, time.Hour },
			want:  rollout.FoundNoData, reason: "no request for 5m", at: 6 * time.Minute,
		},
		"no requests while somebody else's change is known": {
			world: func(w *world) { w.canary.silentFrom, w.canary.silentUntil = 1, time.Hour },
			ask:   func(r *rollout.ObserveRequest) { r.Drifted, r.Gate = true, false },
			want:  rollout.FoundNothing, at: 10 * time.Minute,
			check: func(t *testing.T, w *world, _ rollout.ObserveResult) {
				if len(w.applied) != 0 {
					t.Errorf("the route was set %d times", len(w.applied))
				}
			},
		},
		"one blip of the source is silent": {
			world: func(w *world) { w.source = down(2*time.Minute, 2*time.Minute+15*time.Second) },
			want:  rollout.FoundReady, at: 10 * time.Minute,
			check: func(t *testing.T, _ *world, r rollout.ObserveResult) {
				if r.Requests.Canary != 6000 || r.Observed != minutes(10) {
					t.Errorf("%v requests in %s", r.Requests, r.Observed)
				}
			},
		},
		"the source goes down": {
			world: func(w *world) { w.source = down(2*time.Minute, time.Hour) },
			want:  rollout.FoundSource, reason: "connection refused", at: 2*time.Minute + 30*time.Second,
			check: func(t *testing.T, _ *world, r rollout.ObserveResult) {
				if r.SourceDown == "" || r.Observed != minutes(2)-rollout.Duration(10*time.Second) {
					t.Errorf("source down %q, observed %s", r.SourceDown, r.Observed)
				}
			},
		},
		"the source is known to be down": {
			world: func(w *world) { w.source = down(0, time.Hour) },
			ask: func(r *rollout.ObserveRequest) {
				r.SourceDown, r.Spec.Metrics.NoDataTimeout = "timeout", minutes(60)
			},
			want: rollout.FoundNothing, at: 11 * time.Minute,
			check: func(t *testing.T, _ *world, r rollout.ObserveResult) {
				if r.SourceDown == "" || r.Observed != 0 {
					t.Errorf("source down %q, observed %s", r.SourceDown, r.Observed)
				}
			},
		},
		"the source does not answer for too long": {
			world: func(w *world) { w.source = down(0, time.Hour) },
			ask:   func(r *rollout.ObserveRequest) { r.SourceDown = "timeout" },
			want:  rollout.FoundNoData, reason: "no answer from the metrics source", at: 5 * time.Minute,
		},
		"the source answers again": {
			ask:  func(r *rollout.ObserveRequest) { r.SourceDown = "timeout" },
			want: rollout.FoundSource, reason: "answers again", at: time.Minute,
			check: func(t *testing.T, _ *world, r rollout.ObserveResult) {
				if r.SourceDown != "" {
					t.Errorf("source down %q", r.SourceDown)
				}
			},
		},
		"time without numbers is not observed": {
			world: func(w *world) { w.source = down(2*time.Minute, 4*time.Minute) },
			ask:   func(r *rollout.ObserveRequest) { r.SourceDown = "timeout" },
			want:  rollout.FoundSource, at: time.Minute,
		},
		"both arms bad at once": {
			world: func(w *world) { w.stable.failing, w.canary.failing = 0.9, 0.9 },
			want:  rollout.FoundFreeze, at: time.Minute,
			check: func(t *testing.T, _ *world, r rollout.ObserveResult) {
				if r.Frozen == "" {
					t.Error("not frozen")
				}
			},
		},
		"thawed": {
			ask:  func(r *rollout.ObserveRequest) { r.Frozen = "stable.error_rate > 0.5" },
			want: rollout.FoundFreeze, reason: "judging again", at: time.Minute,
		},
		"the plane goes down": {
			world: func(w *world) { w.plane = down(time.Minute, time.Hour) },
			want:  rollout.FoundPlane, reason: "connection refused", at: 2 * time.Minute,
		},
		"the plane blinks": {
			world: func(w *world) { w.plane = down(time.Minute, 90*time.Second) },
			want:  rollout.FoundReady, at: 10 * time.Minute,
		},
		"the plane goes down, without a lease": {
			world: func(w *world) { w.plane = down(time.Minute, time.Hour) },
			ask:   func(r *rollout.ObserveRequest) { r.Route.Lease = 0 },
			want:  rollout.FoundPlane, at: 2 * time.Minute,
		},
		"the plane answers again": {
			ask:  func(r *rollout.ObserveRequest) { r.PlaneDown = "timeout" },
			want: rollout.FoundPlane, reason: "answers again", at: time.Minute,
		},
		"another owner": {
			world: func(w *world) { w.owner, w.revision = "canary/other/1", 9 },
			want:  rollout.FoundLost, reason: "held by canary/other/1", at: 0,
		},
		"a newer revision of our own": {
			world: func(w *world) { w.revision, w.weight = 4, 0 },
			want:  rollout.FoundLost, at: 0,
		},
		"without a lease nothing is renewed": {
			ask:  func(r *rollout.ObserveRequest) { r.Route.Lease = 0 },
			want: rollout.FoundReady, at: 10 * time.Minute,
			check: func(t *testing.T, w *world, _ rollout.ObserveResult) {
				if len(w.applied) != 0 {
					t.Errorf("set %d times", len(w.applied))
				}
			},
		},
		"long intervals renew the lease in between": {
			ask:  func(r *rollout.ObserveRequest) { r.Spec.Metrics.Interval = minutes(5) },
			want: rollout.FoundReady, at: 10 * time.Minute,
			check: func(t *testing.T, w *world, _ rollout.ObserveResult) {
				if len(w.applied) < 14 {
					t.Errorf("renewed %d times in 10m, the lease is 2m", len(w.applied))
				}
			},
		},
		"a busy source is left alone": {
			world: func(w *world) {
				w.source = func(since time.Duration) error {
					if since == time.Minute {
						return &metrics.Busy{RetryAfter: 15 * time.Second, Err: errors.New("429")}
					}
					if since > time.Minute && since < 75*time.Second {
						return errors.New("asked too soon")
					}
					return nil
				}
			},
			want: rollout.FoundReady, at: 10 * time.Minute,
			check: func(t *testing.T, _ *world, r rollout.ObserveResult) {
				if r.Observed != minutes(10) {
					t.Errorf("observed %s", r.Observed)
				}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, r := newWorld(), request()
			if tc.world != nil {
				tc.world(w)
			}
			if tc.ask != nil {
				tc.ask(&r)
			}
			got := w.observe(t, r)
			if got.Finding != tc.want || !strings.Contains(got.Reason, tc.reason) {
				t.Errorf("found %q after %s because %q, want %q because %q", got.Finding, w.since(), got.Reason, tc.want, tc.reason)
			}
			if tc.check == nil || tc.at != 0 {
				if w.since() != tc.at {
					t.Errorf("it came back after %s, want %s", w.since(), tc.at)
				}
			}
			if tc.check != nil {
				tc.check(t, w, got)
			}
			if got.Observed.Std() > w.since() || !json.Valid(got.Cursor) || len(got.Cursor) > 16<<10 {
				t.Errorf("observed %s of %s, cursor of %d bytes", got.Observed, w.since(), len(got.Cursor))
			}
		})
	}
}

// TestDriftIsPutBackOnce: the first time it is put back and told, the second time it waits for a human, and after an hour it is
// the first time again.
func TestDriftIsPutBackOnce(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		again time.Duration
		want  rollout.Finding
	}{
		"within the hour": {59 * time.Minute, rollout.FoundDrift},
		"much later":      {61 * time.Minute, rollout.FoundNothing},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, r := newWorld(), request()
			w.weight = 0
			first := w.observe(t, r)
			if first.Finding != rollout.FoundNothing || first.PutBack != "weight 0% instead of 5%" || w.weight != 500 {
				t.Fatalf("found %s, put back %q, weight %s", first.Finding, first.PutBack, w.weight)
			}
			w.pass(tc.again)
			w.weight = 0
			r.Cursor = first.Cursor
			second := w.observe(t, r)
			if second.Finding != tc.want {
				t.Errorf("then found %s because %q", second.Finding, second.Reason)
			}
			if put := w.weight == 500; put == (tc.want == rollout.FoundDrift) {
				t.Errorf("and the weight is %s", w.weight)
			}
		})
	}
}

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
	if second.Observed != 0 || second.Requests.Canary != 40*60*10 {
		t.Errorf("observed %s, %v requests", second.Observed, second.Requests)
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
	total := first.Requests.Add(second.Requests)
	if want := w.canary.counters(w.since())[0]; total.Canary != want || second.Finding != rollout.FoundReady {
		t.Errorf("%v of %v canary requests, found %s because %q", total.Canary, want, second.Finding, second.Reason)
	}
	if second.Observed != rollout.Duration(10*time.Minute) {
		t.Errorf("observed %s of the new stage", second.Observed)
	}
}

// TestCrashes: cut at any poll, before or after its answer counted, and resumed from any late heartbeat, a slice ends the same.
func TestCrashes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		canary := behaviour{rps: 10, failing: rapid.SampledFrom([]float64{0.01, 0.3}).Draw(t, "failing"), failsFrom: 3 * time.Minute}
		if rapid.Bool().Draw(t, "unsafe") {
			canary.unsafeFrom = 7 * time.Minute
		}
		whole := newWorld()
		whole.canary = canary
		want := whole.observe(t, request())

		w := newWorld()
		w.canary = canary
		var heartbeat json.RawMessage
		for range rapid.IntRange(1, 4).Draw(t, "crashes") {
			ctx, cancel := context.WithCancel(context.Background())
			try := attempt{name: "Observe", ctx: ctx, heartbeat: heartbeat}
			cut := w.samples + rapid.IntRange(1, 30).Draw(t, "poll")
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
			err := try.run(t, w.config(), request(), &early)
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
		if err := (&attempt{name: "Observe", heartbeat: heartbeat}).run(t, w.config(), request(), &got); err != nil {
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
			if err := try.run(t, w.config(), r, nil); err == nil {
				t.Fatalf("attempt %d ended by itself", i)
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
		if want := w.canary.counters(w.since())[0]; got.Requests.Canary != want {
			t.Fatalf("%v of %v requests", got.Requests.Canary, want)
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

func TestUnusableRequests(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		change    func(*rollout.ObserveRequest)
		heartbeat json.RawMessage
		want      string
	}{
		"a cursor that is no cursor":   {change: func(r *rollout.ObserveRequest) { r.Cursor = json.RawMessage(`"x"`) }, want: "cursor"},
		"a cursor of the future":       {change: func(r *rollout.ObserveRequest) { r.Cursor = json.RawMessage(`{"v":99}`) }, want: "version 99"},
		"a cursor without a version":   {change: func(r *rollout.ObserveRequest) { r.Cursor = json.RawMessage(`{}`) }, want: "version 0"},
		"statistics that are none":     {change: func(r *rollout.ObserveRequest) { r.Cursor = json.RawMessage(`{"v":1,"engine":"x"}`) }, want: "statistics"},
		"a heartbeat that is none":     {heartbeat: json.RawMessage(`{"v":7}`), want: "heartbeat"},
		"an unknown driver":            {change: func(r *rollout.ObserveRequest) { r.Route.Driver = "istio" }, want: "has router"},
		"an unknown target":            {change: func(r *rollout.ObserveRequest) { r.Route.Target = "eu" }, want: "has default"},
		"an unknown metrics provider":  {change: func(r *rollout.ObserveRequest) { r.Spec.Metrics.Provider = "x" }, want: "has router"},
		"an unknown provider's target": {change: func(r *rollout.ObserveRequest) { r.Spec.Metrics.Target = "x" }, want: "has default"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, r := newWorld(), request()
			if tc.change != nil {
				tc.change(&r)
			}
			err := (&attempt{name: "Observe", heartbeat: tc.heartbeat}).run(t, w.config(), r, nil)
			var app *temporal.ApplicationError
			if !errors.As(err, &app) || !app.NonRetryable() || app.Type() != rollout.ErrInvalidRollout || !strings.Contains(app.Message(), tc.want) {
				t.Errorf("got %v, want InvalidRollout about %q", err, tc.want)
			}
		})
	}
}

func TestHeartbeats(t *testing.T) {
	t.Parallel()
	w, r := newWorld(), request()
	r.Spec.Metrics.Interval = rollout.Duration(5 * time.Minute)
	try := attempt{name: "Observe"}
	if err := try.run(t, w.config(), r, nil); err != nil {
		t.Fatal(err)
	}
	if len(try.beats) < 60 {
		t.Errorf("%d heartbeats in ten minutes, the timeout is 30s", len(try.beats))
	}
	for i, raw := range try.beats {
		if len(raw) > 32<<10 {
			t.Fatalf("heartbeat %d takes %d bytes", i, len(raw))
		}
	}
	if t.Failed() {
		fmt.Println(string(try.beats[len(try.beats)-1]))
	}
}
