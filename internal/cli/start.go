package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.temporal.io/sdk/client"

	"github.com/aviary-rollouts/aviary/config"
	"github.com/aviary-rollouts/aviary/rollout"
	"github.com/aviary-rollouts/aviary/workflows"
)

// starting is what start was asked to do.
type starting struct {
	file             string
	overrides        *config.Overrides
	watch, wait, dry bool
	queue            string
}

func (a *app) start() *cobra.Command {
	var how starting
	cmd := &cobra.Command{
		Use: "start FILE", Short: "Start the rollout that a file describes", GroupID: groupSee, Args: one("FILE"),
		Long: `Start the rollout that a file describes, as the Temporal workflow canary/AGENT. An agent has one rollout at a time: a second is refused.`,
	}
	how.overrides = overrides(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&how.watch, "watch", false, "follow the rollout to its end; Ctrl-C leaves it running")
	flags.BoolVar(&how.wait, "wait", false, "say nothing until the rollout has ended")
	flags.BoolVar(&how.dry, "dry-run", false, "print what would be started, and start nothing")
	flags.StringVar(&how.queue, "task-queue", workflows.TaskQueue, "`name` of the workers' task queue")
	cmd.MarkFlagsMutuallyExclusive("watch", "wait", "dry-run")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		how.file = args[0]
		return a.begin(cmd.Context(), how)
	}
	return cmd
}

// started is what start did, or would do.
type started struct {
	WorkflowID string        `json:"workflow_id"`
	RunID      string        `json:"run_id,omitempty"`
	Type       string        `json:"workflow_type"`
	TaskQueue  string        `json:"task_queue"`
	UI         string        `json:"ui,omitempty"`
	Input      *rollout.Spec `json:"input,omitempty"` // of a dry run
}

func (a *app) begin(ctx context.Context, how starting) error {
	if how.queue == "" {
		return usageError{errors.New("--task-queue: want a name")}
	}
	spec, err := load(how.file, *how.overrides)
	if err != nil {
		return err
	}
	options := workflows.StartOptions(spec)
	options.TaskQueue = how.queue
	result := started{WorkflowID: options.ID, Type: workflows.CanaryName, TaskQueue: how.queue}
	if how.dry {
		result.Input = &spec
		return a.emit(result, func() { a.say("%s", a.screen().Plan(spec, options)) })
	}
	s, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer s.temporal.Close()
	run, err := s.begin(ctx, options, spec)
	if err != nil {
		return err
	}
	result.RunID, result.UI = run.GetRunID(), s.link(spec.Agent)
	if !how.watch && !how.wait {
		err := a.emit(result, func() { a.sayStarted(spec, result) })
		a.warnWithoutWorker(ctx, s, how.queue)
		return err
	}
	if a.output == "table" && how.watch {
		a.sayStarted(spec, result)
	}
	return a.follow(ctx, s, &watched{agent: spec.Agent, owner: options.ID + "/" + result.RunID, runID: result.RunID, all: true}, a.viewer(how.wait))
}

func (a *app) sayStarted(spec rollout.Spec, r started) {
	a.say("%s: %s → %s begins, %s, at least %s (workflow %s, run %s)",
		spec.Agent, spec.Stable, spec.Canary, stagesOf(len(spec.Stages)), span(least(spec)), r.WorkflowID, r.RunID)
	if r.UI != "" {
		a.say("%s", r.UI)
	}
}

// warnWithoutWorker says so when nobody is there to carry the rollout out. An error here is no reason to fail: the rollout has begun.
func (a *app) warnWithoutWorker(ctx context.Context, s *session, queue string) {
	if polls, err := s.workerPolls(ctx, queue); err == nil && !polls {
		a.warn("%s", withoutWorker(queue))
	}
}

func withoutWorker(queue string) string {
	return fmt.Sprintf("no worker polls task queue %s: the rollout waits until one does; start a worker there, or check --task-queue and the namespace", queue)
}

// least is how long a rollout takes at the very least.
func least(spec rollout.Spec) time.Duration {
	var sum time.Duration
	for _, stage := range spec.Stages {
		sum += stage.Duration.Std()
	}
	return sum
}

// Plan draws what would be started.
func (s Screen) Plan(spec rollout.Spec, options client.StartWorkflowOptions) string {
	lines := wrap(fmt.Sprintf("would start %s on task queue %s: %s, %s → %s, at least %s",
		options.ID, options.TaskQueue, spec.Agent, spec.Stable, spec.Canary, span(least(spec))), s.columns())
	table := [][]string{{"STAGE", "WEIGHT", "AT LEAST", "REQUESTS", "APPROVAL", "CHECKS"}}
	inks := []ink{dim}
	for _, stage := range spec.Stages {
		table = append(table, []string{
			stage.Name, stage.Share(), span(stage.Duration.Std()), number(float64(stage.MinRequests)), string(stage.Approval),
			strings.Join(stage.Checks, ", "),
		})
		inks = append(inks, plain)
	}
	rows, fits := s.table(table, inks)
	if !fits {
		rows, fits = s.table(pick(table, []int{0, 1, 2, 3}), inks)
	}
	lines = append(lines, "", join(rows, s.columns(), fits), "")
	guards := strings.Join(spec.RollbackCriteria.Checks(), ", ")
	lines = append(lines, wrap("taken back unless: "+guards, s.columns())...)
	if asked := strings.Join(spec.PromotionCriteria.Checks(), ", "); asked != "" {
		lines = append(lines, wrap("asked at the end of every stage: "+asked, s.columns())...)
	}
	return strings.Join(lines, "\n")
}
