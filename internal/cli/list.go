package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	enumspb "go.temporal.io/api/enums/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"golang.org/x/sync/errgroup"

	"github.com/aviary-rollouts/aviary/rollout"
	"github.com/aviary-rollouts/aviary/workflows"
)

// row is one rollout of a list.
type row struct {
	Agent   string         `json:"agent"`
	Stable  string         `json:"stable"`
	Canary  string         `json:"canary"`
	Phase   string         `json:"phase"` // or how the workflow was closed, when that was not by its own end
	Paused  bool           `json:"paused,omitempty"`
	Stage   string         `json:"stage,omitempty"`
	Weight  rollout.Weight `json:"weight"`
	Started time.Time      `json:"started"`
	Ended   time.Time      `json:"ended,omitzero"`
	RunID   string         `json:"run_id"`
}

// listed is what a list asks Temporal for. It needs no search attributes but Temporal's own.
const listed = `WorkflowType = '` + workflows.CanaryName + `' AND ExecutionStatus != 'ContinuedAsNew'`

func (a *app) list() *cobra.Command {
	var (
		limit   int
		running bool
	)
	cmd := &cobra.Command{
		Use: "list", Short: "List running and recent rollouts", GroupID: groupSee, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.showList(cmd.Context(), limit, running) },
	}
	cmd.Flags().IntVar(&limit, "limit", 20, "`number` of rollouts to list at most, the latest first")
	cmd.Flags().BoolVar(&running, "running", false, "only those that still run")
	return cmd
}

func (a *app) showList(ctx context.Context, limit int, running bool) error {
	if limit < 1 || limit > 1000 {
		return usageError{fmt.Errorf("--limit %d: want 1 to 1000", limit)}
	}
	s, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer s.temporal.Close()
	infos, more, err := s.executions(ctx, limit, running)
	if err != nil {
		return err
	}
	rows := s.rows(ctx, infos)
	return a.emit(rows, func() {
		if len(rows) == 0 {
			a.say("There are no rollouts. `starter start FILE` begins one.")
			return
		}
		a.say("%s", a.screen().list(rows, a.Clock.Now()))
		if more {
			a.warn("there are more, --limit %d shows further back", limit*5)
		}
	})
}

// executions are the workflows behind a list, the latest first, and whether there are more of them.
func (s *session) executions(ctx context.Context, limit int, running bool) (infos []*workflowpb.WorkflowExecutionInfo, more bool, err error) {
	request := &workflowservice.ListWorkflowExecutionsRequest{Query: listed, PageSize: int32(limit)}
	if running {
		request.Query = `WorkflowType = '` + workflows.CanaryName + `' AND ExecutionStatus = 'Running'`
	}
	for {
		ctx, cancel := context.WithTimeout(ctx, callLimit)
		page, err := s.temporal.ListWorkflow(ctx, request)
		cancel()
		if err != nil {
			return nil, false, s.explain("list the rollouts", err)
		}
		infos = append(infos, page.GetExecutions()...)
		request.NextPageToken = page.GetNextPageToken()
		if len(request.NextPageToken) == 0 || len(infos) >= limit {
			return infos[:min(limit, len(infos))], len(infos) > limit || len(request.NextPageToken) > 0, nil
		}
	}
}

// askedAtOnce is how many running rollouts are asked at a time.
const askedAtOnce = 8

// rows asks the running ones where they stand. Of the others, and of those that don't answer, it takes what Temporal remembers.
func (s *session) rows(ctx context.Context, infos []*workflowpb.WorkflowExecutionInfo) []row {
	rows := make([]row, len(infos))
	var group errgroup.Group
	group.SetLimit(askedAtOnce)
	for i, info := range infos {
		group.Go(func() error {
			st := remembered(info)
			if info.GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
				var now rollout.Status
				if s.query(ctx, info.GetExecution().GetWorkflowId(), info.GetExecution().GetRunId(), workflows.QueryStatus, &now) == nil {
					st = now
				}
			}
			rows[i] = rowOf(st, info)
			return nil
		})
	}
	_ = group.Wait() // no error ever: what does not answer is shown as remembered
	return rows
}

func rowOf(st rollout.Status, info *workflowpb.WorkflowExecutionInfo) row {
	r := row{
		Agent: st.Agent, Stable: st.Stable, Canary: st.Canary, Phase: string(st.Phase), Paused: st.Paused != nil, Stage: st.Stage,
		Weight: st.Weight, Started: st.Started, Ended: st.Ended, RunID: info.GetExecution().GetRunId(),
	}
	if st.Stages > 0 {
		r.Stage = stageOf(st)
	}
	switch how := info.GetStatus(); {
	case how == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING, st.Phase.Terminal():
	case how == enumspb.WORKFLOW_EXECUTION_STATUS_CANCELED:
		r.Phase = string(rollout.Canceled)
	default:
		r.Phase = closedAs(how)
	}
	return r
}

// list draws rollouts as a table; columns that matter less go first when the screen is narrow.
func (s Screen) list(rows []row, now time.Time) string {
	for _, columns := range [][]int{{0, 1, 2, 3, 4, 5, 6}, {0, 1, 2, 4, 5}, {0, 2, 4}} {
		table := [][]string{{"AGENT", "VERSIONS", "PHASE", "STAGE", "WEIGHT", "BEGAN", "TOOK"}}
		inks := []ink{dim}
		for _, r := range rows {
			phase := r.Phase
			if r.Paused {
				phase += " (paused)"
			}
			began, took := span(now.Sub(r.Started))+" ago", absent
			if !r.Ended.IsZero() {
				took = span(r.Ended.Sub(r.Started))
			}
			table = append(table, []string{r.Agent, r.Stable + " → " + r.Canary, phase, r.Stage, r.Weight.String(), began, took})
			inks = append(inks, plain)
		}
		lines, fits := s.table(pick(table, columns), inks)
		if fits || len(columns) == 3 {
			return join(lines, s.columns(), fits)
		}
	}
	return ""
}

func pick(table [][]string, columns []int) [][]string {
	out := make([][]string, len(table))
	for i, cells := range table {
		for _, c := range columns {
			out[i] = append(out[i], cells[c])
		}
	}
	return out
}
