package workflows

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"

	"github.com/aviary-rollouts/aviary/activities"
	"github.com/aviary-rollouts/aviary/rollout"
)

// Wire names stand in histories of rollouts that go on: a rename breaks them.
func TestWireNames(t *testing.T) {
	t.Parallel()
	want := []string{
		"aviary", "Canary", "Sweep", "Check", "Notify", "Orphans", "Inspect", "status", "decisions", "series", "aviary-sweep", "canary/a",
		"Validate", "SetWeight", "Observe", "Restore", "Finalize", "CanaryAgent", "CanaryPhase", "CanaryWeight",
	}
	got := []string{
		TaskQueue, CanaryName, SweepName, CheckName, NotifyName, OrphansName, InspectName, QueryStatus, QueryDecisions, QuerySeries, SweepID, WorkflowID("a"),
		string(rollout.TaskValidate), string(rollout.TaskSetWeight), string(rollout.TaskObserve), string(rollout.TaskRestore),
		string(rollout.TaskFinalize), attributeAgent.GetName(), attributePhase.GetName(), attributeWeight.GetName(),
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	var signals []string
	for _, s := range rollout.Signals() {
		signals = append(signals, string(s))
	}
	if d := cmp.Diff([]string{"abort", "violation", "pause", "retry", "resume", "approve", "promote"}, signals); d != "" {
		t.Errorf("signals (-want +got):\n%s", d)
	}
}

type names map[string]bool

func (n names) RegisterActivityWithOptions(_ any, o activity.RegisterOptions) { n[o.Name] = true }

// The workflows call activities by name: every name they call must be one that a worker registers.
func TestActivitiesAreRegisteredUnderTheNamesCalled(t *testing.T) {
	t.Parallel()
	got := names{}
	new(activities.Activities).Register(got)
	want := names{NotifyName: true, OrphansName: true, InspectName: true, string(rollout.TaskValidate): true, string(rollout.TaskSetWeight): true,
		string(rollout.TaskObserve): true, string(rollout.TaskRestore): true, string(rollout.TaskFinalize): true}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-called +registered):\n%s", d)
	}
}

func TestValidateResultIsUnderstood(t *testing.T) {
	t.Parallel()
	p, err := converter.GetDefaultDataConverter().ToPayload(activities.ValidateResult{SearchAttributes: true})
	if err != nil {
		t.Fatal(err)
	}
	var got validated
	if err := converter.GetDefaultDataConverter().FromPayload(p, &got); err != nil || !got.SearchAttributes {
		t.Errorf("%+v, %v", got, err)
	}
}
