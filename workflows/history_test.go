package workflows

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"

	"github.com/aviary-rollouts/aviary/rollout"
)

// footprint counts what a run leaves in its history.
type footprint struct{ activities, timers, fired, upserts, messages int }

// events is the longest history that a footprint can come to: each end of an activity, each timer that fires and each signal,
// update or cancel gets a workflow task of its own, of three events. Real histories share some.
func (f footprint) events() int {
	const (
		task       = 3 // scheduled, started, completed
		start, end = 1 + task, 1
		activity   = 3 + task // scheduled, started, and completed, failed or canceled
		timer      = 2        // started, and fired or canceled
		message    = 2 + task // an update is accepted and completed
	)
	return start + f.activities*activity + f.timers*timer + f.fired*task + f.upserts + f.messages*message + end
}

// measure counts a run of the test environment.
func measure(w *world) *footprint {
	var f footprint
	w.env.SetOnActivityStartedListener(func(*activity.Info, context.Context, converter.EncodedValues) { f.activities++ })
	w.env.SetOnTimerScheduledListener(func(string, time.Duration) { f.timers++ })
	w.env.SetOnTimerFiredListener(func(string) { f.fired++ })
	count := func(mock.Arguments) { f.upserts++ }
	w.env.OnUpsertMemo(anything).Return(nil).Run(count)
	w.env.OnUpsertTypedSearchAttributes(anything).Return(nil).Run(count)
	return &f
}

func TestAWeekStaysShort(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.attributes = true
	f := measure(w)
	s := spec()
	full := s.Stages[2]
	s.Stages = nil
	for i, stage := range []struct {
		weight rollout.Weight
		length time.Duration
	}{{100, 24 * time.Hour}, {500, 24 * time.Hour}, {1000, 48 * time.Hour}, {2500, 48 * time.Hour}, {5000, 24 * time.Hour}} {
		next := full
		next.Name, next.Weight, next.Duration = string(rune('a'+i)), stage.weight, rollout.Duration(stage.length)
		s.Stages = append(s.Stages, next)
	}
	s.Stages = append(s.Stages, full)
	began := w.env.Now()
	w.run(s)
	got := w.result()
	if took := got.Ended.Sub(began); got.Phase != rollout.Promoted || took < 7*24*time.Hour {
		t.Fatalf("%s after %s", got.Phase, took)
	}
	if f.activities < 7*24 || f.timers < 7*24 || f.upserts == 0 {
		t.Errorf("not counted: %+v", *f)
	}
	if n := f.events(); n >= 2000 {
		t.Errorf("a week takes up to %d events, want fewer than 2000: %+v", n, *f)
	}
}

// footprintOf counts a real history.
func footprintOf(h *history.History) footprint {
	var f footprint
	for _, e := range h.Events {
		switch e.EventType {
		case enums.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
			f.activities++
		case enums.EVENT_TYPE_TIMER_STARTED:
			f.timers++
		case enums.EVENT_TYPE_TIMER_FIRED:
			f.fired++
		case enums.EVENT_TYPE_WORKFLOW_PROPERTIES_MODIFIED, enums.EVENT_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES:
			f.upserts++
		case enums.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED, enums.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED,
			enums.EVENT_TYPE_WORKFLOW_EXECUTION_CANCEL_REQUESTED:
			f.messages++
		}
	}
	return f
}
