package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aviary-rollouts/aviary/rollout"
	"github.com/aviary-rollouts/aviary/workflows"
)

// TestPlanesSecondOwner: while a canary has traffic, the rollout of another control plane is refused on the same data plane, is told whose
// it is, and changes nothing.
func TestPlanesSecondOwner(t *testing.T) {
	t.Parallel()
	for driver := range planes {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			p := newPlane(t, driver)
			p.start(p.rollout("v41", "v42", longStage))
			p.until("bot", "half of the traffic", func(s rollout.Status) bool { return s.Phase == rollout.Observing && s.Weight == 5000 })
			p.gets("v42", 0.3, 0.7)

			other := newWorld(t, worldOptions{noWorker: true, env: p.options.env})
			settings, err := os.ReadFile(filepath.Join(p.dir, "worker.yaml"))
			p.must(err)
			other.must(os.WriteFile(filepath.Join(other.dir, "worker.yaml"), settings, 0o600))
			other.startWorker()
			out, code := other.starter("start", other.file("other.yaml", p.rollout("v41", "v43", longStage)), "--watch")
			if code == 0 || !strings.Contains(out, "held by "+p.owner("bot")) {
				t.Errorf("the second owner ended with code %d, want it refused because of %s:\n%s", code, p.owner("bot"), out)
			}
			p.gets("v42", 0.3, 0.7)
			p.gets("v43", 0, 0)
			if s, err := p.status("bot"); err != nil || s.Phase != rollout.Observing || s.Weight != 5000 || s.Paused != nil {
				t.Errorf("the first owner's rollout: %+v, %v", s, err)
			}
			if out, code := p.starter("abort", "bot"); code != 0 {
				t.Fatalf("abort: code %d:\n%s", code, out)
			}
			p.until("bot", "aborted", func(s rollout.Status) bool { return s.Phase == rollout.Aborted })
			p.gets("v41", 1, 1)
		})
	}
}

// owner is how a rollout signs its routes.
func (w *world) owner(agentName string) string {
	w.t.Helper()
	ctx, cancel := w.ready()
	defer cancel()
	d, err := w.temporal.DescribeWorkflowExecution(ctx, workflows.WorkflowID(agentName), "")
	w.must(err)
	return workflows.WorkflowID(agentName) + "/" + d.GetWorkflowExecutionInfo().GetExecution().GetRunId()
}
