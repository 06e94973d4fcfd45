package workflows

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/mock"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/mocks"
	"go.temporal.io/sdk/temporal"

	"github.com/aviary-rollouts/aviary/rollout"
)

// sweep runs one sweep over orphans.
func sweep(t *testing.T, orphans func(context.Context) ([]rollout.Route, error), restore map[string]error) (swept Swept, tries map[string]int, err error) {
	t.Helper()
	w := newWorld(t)
	w.env.RegisterActivityWithOptions(orphans, activity.RegisterOptions{Name: OrphansName})
	tries = map[string]int{}
	w.env.OnActivity("Restore", anything, anything).Return(func(_ context.Context, r rollout.Route) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		tries[r.Agent]++
		return restore[r.Agent]
	})
	w.env.ExecuteWorkflow(SweepName)
	if err = w.env.GetWorkflowError(); err == nil {
		err = w.env.GetWorkflowResult(&swept)
	}
	return swept, tries, err
}

func TestSweepRestoresWhatItCan(t *testing.T) {
	t.Parallel()
	route := func(agent string) rollout.Route {
		return rollout.Route{Driver: "router", Target: "default", Agent: agent, Stable: "v1", Canary: "v2", Rollback: true}
	}
	orphans := []rollout.Route{route("down"), route("fine"), route("taken"), route("other")}
	swept, tries, err := sweep(t, func(context.Context) ([]rollout.Route, error) { return orphans, nil }, map[string]error{
		"down":  temporal.NewApplicationError("no route to host", rollout.ErrDriver),
		"taken": temporal.NewApplicationError("held by another", rollout.ErrOwnershipLost),
	})
	if err != nil {
		t.Fatal(err)
	}
	want := Swept{
		Restored: []rollout.Route{route("fine"), route("other")},
		Left:     []Left{{route("down"), "no route to host"}, {route("taken"), "held by another"}},
	}
	if d := cmp.Diff(want, swept); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if d := cmp.Diff(map[string]int{"down": 4, "fine": 1, "taken": 1, "other": 1}, tries); d != "" {
		t.Errorf("tries (-want +got):\n%s", d)
	}
}

func TestSweepOfNothing(t *testing.T) {
	t.Parallel()
	swept, _, err := sweep(t, func(context.Context) ([]rollout.Route, error) { return nil, nil }, nil)
	if err != nil || len(swept.Restored)+len(swept.Left) > 0 {
		t.Errorf("%+v, %v", swept, err)
	}
}

func TestSweepWithoutAListFails(t *testing.T) {
	t.Parallel()
	_, _, err := sweep(t, func(context.Context) ([]rollout.Route, error) { return nil, errors.New("no answer") }, nil)
	if err == nil {
		t.Error("a sweep that could not look ended well")
	}
}

func TestEnsureSweep(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	schedules := func() (*mocks.Client, *mocks.ScheduleClient) {
		c, s := &mocks.Client{}, &mocks.ScheduleClient{}
		c.On("ScheduleClient").Return(s)
		return c, s
	}
	t.Run("created", func(t *testing.T) {
		t.Parallel()
		c, s := schedules()
		s.On("Create", ctx, mock.MatchedBy(func(o client.ScheduleOptions) bool {
			action, ok := o.Action.(*client.ScheduleWorkflowAction)
			return ok && o.ID == "aviary-sweep" && o.Overlap == enums.SCHEDULE_OVERLAP_POLICY_SKIP && o.Spec.Intervals[0].Every == 5*time.Minute &&
				action.Workflow == "Sweep" && action.TaskQueue == "aviary"
		})).Return(&mocks.ScheduleHandle{}, nil).Once()
		if err := EnsureSweep(ctx, c, TaskQueue, 5*time.Minute); err != nil {
			t.Error(err)
		}
		s.AssertExpectations(t)
	})
	t.Run("updated, still paused", func(t *testing.T) {
		t.Parallel()
		c, s := schedules()
		handle := &mocks.ScheduleHandle{}
		s.On("Create", ctx, mock.Anything).Return(nil, temporal.ErrScheduleAlreadyRunning)
		s.On("GetHandle", ctx, "aviary-sweep").Return(handle)
		handle.On("Update", ctx, mock.Anything).Return(nil).Run(func(args mock.Arguments) {
			in := client.ScheduleUpdateInput{Description: client.ScheduleDescription{Schedule: client.Schedule{
				Spec: &client.ScheduleSpec{Intervals: []client.ScheduleIntervalSpec{{Every: time.Hour}}}, State: &client.ScheduleState{Paused: true},
			}}}
			out, err := args.Get(1).(client.ScheduleUpdateOptions).DoUpdate(in)
			if err != nil || !out.Schedule.State.Paused || out.Schedule.Spec.Intervals[0].Every != time.Minute ||
				out.Schedule.Policy.Overlap != enums.SCHEDULE_OVERLAP_POLICY_SKIP {
				t.Errorf("%+v, %v", out, err)
			}
		}).Once()
		if err := EnsureSweep(ctx, c, TaskQueue, time.Minute); err != nil {
			t.Error(err)
		}
		handle.AssertExpectations(t)
	})
	t.Run("refused", func(t *testing.T) {
		t.Parallel()
		c, s := schedules()
		denied := errors.New("permission denied")
		s.On("Create", ctx, mock.Anything).Return(nil, denied)
		if err := EnsureSweep(ctx, c, TaskQueue, time.Minute); !errors.Is(err, denied) {
			t.Errorf("%v, want %v", err, denied)
		}
		if err := EnsureSweep(ctx, c, TaskQueue, time.Millisecond); err == nil {
			t.Error("an interval of 1ms was accepted")
		}
	})
}
