package activities_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/temporal"

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
		"nothing is ready while the plane is down": {
			world: func(w *world) { w.plane = down(0, time.Hour) },
			ask:   func(r *rollout.ObserveRequest) { r.PlaneDown = "timeout" },
			want:  rollout.FoundNothing, at: 10 * time.Minute,
		},
		"another owner, just after a change was put back": {
			world: func(w *world) { w.owner, w.weight, w.revision = "canary/other/1", 0, 9 },
			ask: func(r *rollout.ObserveRequest) {
				r.Cursor = json.RawMessage(`{"v":1,"put_back_at":"` + t0.Format(time.RFC3339) + `"}`)
			},
			want: rollout.FoundLost, at: 0,
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
		"after a fault a slow poll is asked again sooner": {
			world: func(w *world) { w.source = down(5*time.Minute, 5*time.Minute+15*time.Second) },
			ask: func(r *rollout.ObserveRequest) {
				r.Spec.Metrics.Interval, r.Spec.Metrics.NoDataTimeout = minutes(5), minutes(60)
			},
			want: rollout.FoundReady, at: 10 * time.Minute,
			check: func(t *testing.T, _ *world, r rollout.ObserveResult) {
				if r.Polls != 2 || r.Observed != minutes(10) {
					t.Errorf("%d polls, observed %s", r.Polls, r.Observed)
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
						t.Errorf("asked again at %s", since)
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

func TestUnusableRequests(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		change    func(*rollout.ObserveRequest)
		heartbeat json.RawMessage
		want      string
	}{
		"a cursor that is no cursor":   {change: func(r *rollout.ObserveRequest) { r.Cursor = json.RawMessage(`"x"`) }, want: "cursor"},
		"a cursor without a version":   {change: func(r *rollout.ObserveRequest) { r.Cursor = json.RawMessage(`{}`) }, want: "version 0"},
		"statistics that are none":     {change: func(r *rollout.ObserveRequest) { r.Cursor = json.RawMessage(`{"v":1,"engine":"x"}`) }, want: "statistics"},
		"a heartbeat that is none":     {heartbeat: json.RawMessage(`{"v":1,"poll":"x"}`), want: "heartbeat"},
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
