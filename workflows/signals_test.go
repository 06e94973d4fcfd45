package workflows

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/stretchr/testify/mock"
	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/testsuite"

	"github.com/aviary-rollouts/aviary/rollout"
)

const anything = mock.Anything

type ctxArg = context.Context

// update sends an update; done gets its answer, or why it was refused.
func (w *world) update(s rollout.Signal, payload any, done func(status rollout.Status, refused string)) {
	w.env.UpdateWorkflow(string(s), uuid.NewString(), &testsuite.TestUpdateCallback{
		OnAccept: func() {},
		OnReject: func(err error) { done(rollout.Status{}, err.Error()) },
		OnComplete: func(result any, err error) {
			if err != nil {
				w.t.Errorf("update %s: %v", s, err)
				return
			}
			done(result.(rollout.Status), "")
		},
	}, payload)
}

func raw(encoding, data string) converter.RawValue {
	return converter.NewRawValue(&commonpb.Payload{Metadata: map[string][]byte{"encoding": []byte(encoding)}, Data: []byte(data)})
}

// encoded is v as it goes over the wire.
func encoded(t *testing.T, v any) converter.RawValue {
	t.Helper()
	if v == nil {
		return converter.RawValue{}
	}
	p, err := converter.GetDefaultDataConverter().ToPayload(v)
	if err != nil {
		t.Fatal(err)
	}
	return converter.NewRawValue(p)
}

// payloads are all that people and tools may send with a signal, and what is understood of it.
func payloads() map[string]struct {
	payload any
	want    rollout.Ask
} {
	type row = struct {
		payload any
		want    rollout.Ask
	}
	return map[string]row{
		"nil":               {nil, rollout.Ask{}},
		"string":            {"too slow", rollout.Ask{Reason: "too slow"}},
		"object":            {map[string]any{"by": "ada", "reason": "too\nslow", "full": true}, rollout.Ask{By: "ada", Reason: "too slow", Full: true}},
		"ask":               {rollout.Ask{By: "ada"}, rollout.Ask{By: "ada"}},
		"wrong types":       {map[string]any{"by": 7, "reason": "slow", "full": "yes"}, rollout.Ask{Reason: "slow"}},
		"unknown keys":      {map[string]any{"who": "ada", "by": "bob"}, rollout.Ask{By: "bob"}},
		"number":            {3.5, rollout.Ask{}},
		"list":              {[]int{1, 2}, rollout.Ask{}},
		"bytes":             {[]byte{0, 1, 2}, rollout.Ask{}},
		"broken JSON":       {raw("json/plain", `{"by": "ada`), rollout.Ask{}},
		"unknown encoding":  {raw("binary/rot13", "nobeg"), rollout.Ask{}},
		"no encoding":       {converter.NewRawValue(&commonpb.Payload{Data: []byte("stop")}), rollout.Ask{}},
		"protobuf":          {raw("json/protobuf", `{"by":"ada"}`), rollout.Ask{}},
		"nil payload":       {converter.NewRawValue(nil), rollout.Ask{}},
		"long":              {strings.Repeat("é", 400), rollout.Ask{Reason: strings.Repeat("é", 248) + "…"}},
		"null in an object": {map[string]any{"by": nil, "reason": nil}, rollout.Ask{}},
	}
}

func TestDecodeAsk(t *testing.T) {
	t.Parallel()
	for name, row := range payloads() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all, err := converter.GetDefaultDataConverter().ToPayloads(row.payload)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(row.want, decodeAsk(converter.NewRawValue(all.Payloads[0]))); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
	if got := decodeAsk(converter.RawValue{}); got != (rollout.Ask{}) {
		t.Errorf("no payload at all: %+v", got)
	}
}

func TestAnyPayloadAborts(t *testing.T) {
	t.Parallel()
	for name, row := range payloads() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			at := w.env.Now().Add(10 * time.Minute)
			w.signal(10*time.Minute, rollout.SignalAbort, row.payload)
			w.run(spec())
			got := w.result()
			if got.Phase != rollout.Aborted || !got.Ended.Equal(at) || !strings.Contains(got.Reason, row.want.Reason) || !strings.Contains(got.Reason, row.want.By) {
				t.Errorf("%s at %s: %s", got.Phase, got.Ended, got.Reason)
			}
		})
	}
}

func TestAnyPayloadPausesAndResumes(t *testing.T) {
	t.Parallel()
	for name, row := range payloads() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			began := w.env.Now()
			w.signal(10*time.Minute, rollout.SignalPause, row.payload)
			w.at(2*time.Hour, func() {
				if s := w.status(); s.Paused == nil || s.Weight != 500 || s.Paused.Reason != row.want.Reason {
					t.Errorf("paused: %+v", s.Paused)
				}
			})
			w.signal(3*time.Hour, rollout.SignalResume, row.payload)
			w.run(spec())
			if got := w.result(); got.Phase != rollout.Promoted || got.Ended.Sub(began) < 3*time.Hour+50*time.Minute {
				t.Errorf("%s after %s", got.Phase, got.Ended.Sub(began))
			}
		})
	}
}

func TestSignalsOfOneMoment(t *testing.T) {
	t.Parallel()
	t.Run("abort wins, however late it came", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.at(10*time.Minute, func() {
			for _, s := range []rollout.Signal{rollout.SignalPromote, rollout.SignalApprove, rollout.SignalResume, rollout.SignalPause} {
				w.env.SignalWorkflowSkippingWorkflowTask(string(s), map[string]any{"full": true})
			}
			w.env.SignalWorkflow(string(rollout.SignalAbort), nil)
		})
		w.run(spec())
		if got := w.result(); got.Phase != rollout.Aborted {
			t.Errorf("phase %s", got.Phase)
		}
		for _, call := range w.calls {
			if strings.HasPrefix(call, "Finalize") {
				t.Errorf("promoted on the way: %q", w.calls)
			}
		}
	})
	t.Run("a pause comes before the end of the stage", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.observe = func(now time.Time, r rollout.ObserveRequest) (rollout.ObserveResult, time.Duration) {
			if len(w.slices) == 1 {
				w.at(30*time.Minute, func() { w.env.SignalWorkflowSkippingWorkflowTask("pause", nil) })
			}
			return healthy(now, r)
		}
		w.at(2*time.Hour, func() {
			if s := w.status(); s.Weight != 500 || s.Paused == nil {
				t.Errorf("status %+v", s)
			}
		})
		w.signal(3*time.Hour, rollout.SignalResume, nil)
		w.run(spec())
		if got := w.result(); got.Phase != rollout.Promoted {
			t.Errorf("phase %s", got.Phase)
		}
	})
}

func TestUpdates(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := spec()
	s.Stages[1].Approval = rollout.ApprovalRequired
	asked, answered := 0, 0
	expect := func(d time.Duration, s rollout.Signal, payload any, refusal string, check func(rollout.Status) bool) {
		asked++
		w.at(d, func() {
			w.update(s, payload, func(status rollout.Status, refused string) {
				answered++
				switch {
				case refusal != "" && !strings.Contains(refused, refusal), refusal == "" && refused != "":
					t.Errorf("%s at %s: refused with %q, want %q", s, d, refused, refusal)
				case refusal == "" && !check(status):
					t.Errorf("%s at %s: %+v", s, d, status)
				}
			})
		})
	}
	expect(time.Minute, rollout.SignalResume, nil, "not paused", nil)
	expect(2*time.Minute, rollout.SignalApprove, "x", "nothing to approve", nil)
	expect(3*time.Minute, rollout.SignalRetry, raw("json/plain", "{"), "nothing to retry", nil)
	expect(4*time.Minute, rollout.SignalPause, rollout.Ask{By: "ada"}, "", func(s rollout.Status) bool { return s.Paused.By == "ada" })
	expect(5*time.Minute, rollout.SignalPause, nil, "already paused by ada", nil)
	expect(time.Hour, rollout.SignalResume, nil, "", func(s rollout.Status) bool { return s.Paused == nil && s.Phase == rollout.Observing })
	expect(time.Hour+time.Minute, rollout.SignalPromote, "good enough", "", func(s rollout.Status) bool { return s.Phase == rollout.Shifting && s.StageIndex == 1 })
	expect(3*time.Hour, rollout.SignalApprove, nil, "", func(s rollout.Status) bool { return s.Phase == rollout.Shifting && s.StageIndex == 2 })
	w.take[rollout.TaskFinalize] = always(5*time.Minute, nil)
	expect(3*time.Hour+time.Minute, rollout.SignalPause, nil, "too late to pause", nil)
	expect(3*time.Hour+2*time.Minute, rollout.SignalAbort, "after all", "", func(s rollout.Status) bool { return s.Phase == rollout.Restoring && s.Outcome == rollout.Aborted })
	w.take[rollout.TaskRestore] = always(time.Minute, nil)
	expect(3*time.Hour+150*time.Second, rollout.SignalAbort, nil, "already restoring", nil)
	w.notify = func(int) (time.Duration, error) { return 3 * time.Minute, nil } // the workflow lingers for its last notices
	expect(3*time.Hour+190*time.Second, rollout.SignalPromote, nil, "the rollout has ended", nil)
	w.run(s)
	if got := w.result(); got.Phase != rollout.Aborted {
		t.Errorf("phase %s", got.Phase)
	}
	if answered != asked {
		t.Errorf("%d answers to %d updates", answered, asked)
	}
	restored(t, w)
}

// A rollout that was validated while paused has nothing in flight: only the update itself can wake its loop.
func TestUpdateWakesAnIdleRollout(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.take[rollout.TaskValidate] = always(30*time.Second, nil)
	w.signal(10*time.Second, rollout.SignalPause, nil)
	w.at(time.Hour, func() {
		if s := w.status(); s.Phase != rollout.Validating || len(w.calls) != 0 {
			t.Errorf("%s with calls %q", s.Phase, w.calls)
		}
		w.update(rollout.SignalResume, nil, func(rollout.Status, string) {})
	})
	w.run(spec())
	if got := w.result(); got.Phase != rollout.Promoted {
		t.Errorf("phase %s", got.Phase)
	}
}

func TestPromoteFullSkipsTheRest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.signal(time.Minute, rollout.SignalPromote, map[string]any{"by": "ada", "full": true})
	w.run(spec())
	want := []string{"SetWeight 5%", "Observe 5%", "Finalize 0%"}
	if d := cmp.Diff(want, w.calls); d != "" {
		t.Errorf("calls (-want +got):\n%s", d)
	}
	if got := w.result(); got.Phase != rollout.Promoted {
		t.Errorf("phase %s", got.Phase)
	}
}

func TestQueries(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.observe = func(now time.Time, r rollout.ObserveRequest) (rollout.ObserveResult, time.Duration) {
		result, d := healthy(now, r)
		result.Series = []rollout.Point{{At: now, Weight: r.Route.Weight}}
		return result, d
	}
	w.run(spec())
	if got := query[[]rollout.Point](w, QuerySeries); len(got) != 2 || got[1].Weight != 2500 {
		t.Errorf("series %+v", got)
	}
	ds := w.decisions()
	if ds[0].Kind != rollout.DecideStart || ds[len(ds)-1].Kind != rollout.DecideEnd {
		t.Errorf("decisions %+v", ds)
	}
}
