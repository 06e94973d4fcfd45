package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"

	"github.com/aviary-rollouts/aviary/rollout"
	"github.com/aviary-rollouts/aviary/workflows"
)

// Temporal is the part of Temporal's client that the command line uses; client.Client is one.
type Temporal interface {
	ExecuteWorkflow(ctx context.Context, options client.StartWorkflowOptions, workflow any, args ...any) (client.WorkflowRun, error)
	GetWorkflow(ctx context.Context, workflowID, runID string) client.WorkflowRun
	ListWorkflow(ctx context.Context, request *workflowservice.ListWorkflowExecutionsRequest) (*workflowservice.ListWorkflowExecutionsResponse, error)
	DescribeWorkflowExecution(ctx context.Context, workflowID, runID string) (*workflowservice.DescribeWorkflowExecutionResponse, error)
	DescribeTaskQueue(ctx context.Context, queue string, kind enumspb.TaskQueueType) (*workflowservice.DescribeTaskQueueResponse, error)
	QueryWorkflow(ctx context.Context, workflowID, runID, query string, args ...any) (converter.EncodedValue, error)
	UpdateWorkflow(ctx context.Context, options client.UpdateWorkflowOptions) (client.WorkflowUpdateHandle, error)
	SignalWorkflow(ctx context.Context, workflowID, runID, signal string, arg any) error
	Close()
}

// look is what could be learned about one rollout.
type look struct {
	Status rollout.Status
	RunID  string
	Queue  string
	Closed bool
	How    enumspb.WorkflowExecutionStatus // of the workflow itself
	// Stale says why Status is not the workflow's own answer but only what Temporal keeps beside it. Empty: it is fresh.
	Stale string
	// Live is the series of the slice under way, which the workflow does not know yet.
	Live []rollout.Point
}

// ended reports whether nothing more will happen.
func (l look) ended() bool { return l.Closed || l.Status.Phase.Terminal() }

// cutOff says how a workflow was closed by other means than its own end, such as "terminated". Empty otherwise.
func (l look) cutOff() string {
	if !l.Closed || l.Status.Phase.Terminal() {
		return ""
	}
	return closedAs(l.How)
}

func closedAs(how enumspb.WorkflowExecutionStatus) string {
	switch how {
	case enumspb.WORKFLOW_EXECUTION_STATUS_TERMINATED:
		return "terminated"
	case enumspb.WORKFLOW_EXECUTION_STATUS_TIMED_OUT:
		return "timed out"
	case enumspb.WORKFLOW_EXECUTION_STATUS_FAILED:
		return "failed"
	}
	return strings.ToLower(how.String())
}

// look asks Temporal, and through it the workflow, where the latest rollout of an agent stands.
func (s *session) look(ctx context.Context, agent string) (look, error) {
	return s.lookAt(ctx, agent, "")
}

// lookAt is look for one run of the workflow; empty means the latest.
func (s *session) lookAt(ctx context.Context, agent, runID string) (look, error) {
	id := workflows.WorkflowID(agent)
	calling, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	described, err := s.temporal.DescribeWorkflowExecution(calling, id, runID)
	if err != nil {
		if notFound(err) {
			return look{}, noRollout(agent)
		}
		return look{}, s.explain("look at the rollout of "+agent, err)
	}
	info := described.GetWorkflowExecutionInfo()
	l := look{RunID: info.GetExecution().GetRunId(), Queue: info.GetTaskQueue(), How: info.GetStatus()}
	l.Closed = l.How != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING && l.How != enumspb.WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW
	if l.Closed && s.result(ctx, agent, &l) {
		return l, nil
	}
	err = s.query(ctx, id, l.RunID, workflows.QueryStatus, &l.Status)
	switch {
	case err == nil:
		l.freshen(described.GetPendingActivities())
		return l, nil
	case ctx.Err() != nil:
		return look{}, interrupted{}
	}
	l.Status = remembered(info)
	if !l.Closed {
		l.Stale = stale(err, l.Queue)
	}
	return l, nil
}

// result takes the status of a closed workflow from its result, which needs no worker. It reports whether there was one.
func (s *session) result(ctx context.Context, agent string, l *look) bool {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	var st rollout.Status
	err := s.temporal.GetWorkflow(ctx, workflows.WorkflowID(agent), l.RunID).Get(ctx, &st)
	l.Status = st
	return err == nil && st.Agent != ""
}

// remembered is the little of a status that Temporal keeps beside a workflow. What is not kept is zero.
func remembered(info *workflowpb.WorkflowExecutionInfo) rollout.Status {
	st := rollout.Status{Started: info.GetStartTime().AsTime()}
	if info.GetCloseTime().IsValid() {
		st.Ended = info.GetCloseTime().AsTime()
	}
	for key, into := range map[string]any{
		workflows.MemoAgent: &st.Agent, workflows.MemoStable: &st.Stable, workflows.MemoCanary: &st.Canary,
		workflows.MemoPhase: &st.Phase, workflows.MemoStage: &st.Stage, workflows.MemoWeight: &st.Weight,
	} {
		if payload, ok := info.GetMemo().GetFields()[key]; ok {
			// What can't be read stays zero: a memo is a courtesy, and somebody else may have written it.
			_ = converter.GetDefaultDataConverter().FromPayload(payload, into)
		}
	}
	if st.Agent == "" {
		st.Agent = strings.TrimPrefix(info.GetExecution().GetWorkflowId(), workflows.WorkflowID(""))
	}
	return st
}

func stale(err error, queue string) string {
	if noAnswer(err) {
		return fmt.Sprintf("no worker on task queue %s answers; this is the last that Temporal knows", queue)
	}
	return fmt.Sprintf("the workflow does not answer, this is the last that Temporal knows: %v", err)
}

// query asks a workflow and waits for a worker's answer for answerLimit at most.
func (s *session) query(ctx context.Context, id, runID, name string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	value, err := s.temporal.QueryWorkflow(ctx, id, runID, name)
	if err != nil {
		return err
	}
	if !value.HasValue() {
		return fmt.Errorf("query %s: an empty answer", name)
	}
	if err := value.Get(into); err != nil {
		return fmt.Errorf("read the answer to query %s: %w", name, err)
	}
	return nil
}

func noRollout(agent string) error {
	return fmt.Errorf("there is no rollout of agent %q: `starter list` shows the ones there are", agent)
}

// liveWorker is how recently a worker must have polled to count. A poll lasts a minute.
const liveWorker = 100 * time.Second

// workerPolls reports whether a worker polls the task queue for workflows.
func (s *session) workerPolls(ctx context.Context, queue string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	q, err := s.temporal.DescribeTaskQueue(ctx, queue, enumspb.TASK_QUEUE_TYPE_WORKFLOW)
	if err != nil {
		return false, s.explain("look for workers on task queue "+queue, err)
	}
	for _, p := range q.GetPollers() {
		if s.clock.Now().Sub(p.GetLastAccessTime().AsTime()) < liveWorker {
			return true, nil
		}
	}
	return false, nil
}

// begin starts a rollout, and refuses when the agent has one already.
func (s *session) begin(ctx context.Context, options client.StartWorkflowOptions, spec rollout.Spec) (client.WorkflowRun, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	options.WorkflowExecutionErrorWhenAlreadyStarted = true
	run, err := s.temporal.ExecuteWorkflow(ctx, options, workflows.CanaryName, spec)
	var running *serviceerror.WorkflowExecutionAlreadyStarted
	switch {
	case err == nil:
		return run, nil
	case errors.As(err, &running):
		return nil, fmt.Errorf("%s already has a rollout, workflow %s: `starter status %s` shows it, `starter abort %s` ends it",
			spec.Agent, options.ID, spec.Agent, spec.Agent)
	}
	return nil, s.explain("start "+options.ID, err)
}

// agentOf takes an agent's name, or its rollout's workflow ID, as an argument.
func agentOf(arg string) (string, error) {
	agent := strings.TrimPrefix(arg, workflows.WorkflowID(""))
	if !rollout.ValidName(agent) {
		return "", usageError{fmt.Errorf("agent %q: want a name of the form %s", arg, rollout.NamePattern)}
	}
	return agent, nil
}
