package workflows

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/aviary-rollouts/aviary/rollout"
)

// histories are all recorded ones, by name.
func histories(t *testing.T) map[string]*history.History {
	t.Helper()
	files, err := filepath.Glob("testdata/*.json")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]*history.History{}
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		h, err := client.HistoryFromJSON(f, client.HistoryJSONOptions{})
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		all[strings.TrimSuffix(filepath.Base(file), ".json")] = h
	}
	if len(all) < 6 {
		t.Fatalf("%d histories in testdata, want at least 6", len(all))
	}
	return all
}

func replay(t *testing.T, h *history.History, canary any) error {
	t.Helper()
	r, err := worker.NewWorkflowReplayerWithOptions(worker.WorkflowReplayerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r.RegisterWorkflowWithOptions(canary, workflow.RegisterOptions{Name: CanaryName})
	r.RegisterWorkflowWithOptions(Sweep, workflow.RegisterOptions{Name: SweepName})
	return r.ReplayWorkflowHistory(log.NewStructuredLogger(slog.New(slog.DiscardHandler)), h)
}

func TestReplay(t *testing.T) {
	t.Parallel()
	for name, h := range histories(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := replay(t, h, Canary); err != nil {
				t.Error(err)
			}
		})
	}
}

// A replay that can't fail proves nothing: tampered histories and another workflow must not pass.
func TestReplayNoticesADifference(t *testing.T) {
	t.Parallel()
	for name, h := range histories(t) {
		if h.Events[0].GetWorkflowExecutionStartedEventAttributes().WorkflowType.Name != CanaryName {
			continue
		}
		scheduled := ofType(h, enums.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED)
		if len(scheduled) == 0 {
			continue // refused at once
		}
		t.Run(name+"/another workflow", func(t *testing.T) {
			t.Parallel()
			if err := replay(t, h, slower); err == nil {
				t.Error("a workflow that sleeps first replayed without an error")
			}
		})
	}
	t.Run("another activity", func(t *testing.T) {
		t.Parallel()
		h := histories(t)["promoted"]
		scheduled := ofType(h, enums.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED)
		for _, e := range scheduled {
			if a := e.GetActivityTaskScheduledEventAttributes(); a.ActivityType.Name == string(rollout.TaskFinalize) {
				a.ActivityType.Name = string(rollout.TaskRestore)
			}
		}
		if err := replay(t, h, Canary); err == nil {
			t.Error("a history that restores where it promoted replayed without an error")
		}
	})
	t.Run("an event less", func(t *testing.T) {
		t.Parallel()
		h := histories(t)["promoted"]
		for i, e := range h.Events {
			if e.EventType == enums.EVENT_TYPE_TIMER_STARTED {
				h.Events = append(h.Events[:i], h.Events[i+1:]...)
				break
			}
		}
		if err := replay(t, h, Canary); err == nil {
			t.Error("a history without its first timer replayed without an error")
		}
	})
}

func slower(ctx workflow.Context, input, carried converter.RawValue) (rollout.Status, error) {
	if err := workflow.Sleep(ctx, time.Second); err != nil {
		return rollout.Status{}, err
	}
	return Canary(ctx, input, carried)
}

func ofType(h *history.History, kind enums.EventType) []*history.HistoryEvent {
	var out []*history.HistoryEvent
	for _, e := range h.Events {
		if e.EventType == kind {
			out = append(out, e)
		}
	}
	return out
}

// The bound on the length of a history must hold for real ones, or the test of a week proves nothing.
func TestRealHistoriesKeepTheBound(t *testing.T) {
	t.Parallel()
	for name, h := range histories(t) {
		if bound := footprintOf(h).events(); len(h.Events) > bound {
			t.Errorf("%s has %d events, the bound says at most %d: %+v", name, len(h.Events), bound, footprintOf(h))
		}
	}
}
