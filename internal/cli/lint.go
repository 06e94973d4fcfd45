package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/aviary-rollouts/aviary/config"
	"github.com/aviary-rollouts/aviary/rollout"
	"github.com/aviary-rollouts/aviary/workflows"
)

// checked is what lint says of one file.
type checked struct {
	File     string           `json:"file"`
	OK       bool             `json:"ok"`
	Agent    string           `json:"agent,omitempty"`
	Stages   int              `json:"stages,omitempty"`
	Problems []string         `json:"problems,omitempty"` // as file:line: path: what is wrong, and what is allowed
	Live     []rollout.Remark `json:"live,omitempty"`     // what a worker found
}

// linting is what lint was asked to do.
type linting struct {
	overrides *config.Overrides
	live      bool
	queue     string
}

func (a *app) lint() *cobra.Command {
	var how linting
	cmd := &cobra.Command{
		Use: "lint FILE...", Short: "Check rollout files, and say everything that is wrong with them", GroupID: groupFile,
		Long: `Check rollout files, and say everything that is wrong with them.

With --live a worker looks, too, at all that the rollout would need: whether what the file names is there, whether the worker may change it,
and whether the numbers come in. Nothing is changed. It takes Temporal and a worker, for only a worker has addresses, secrets and rights.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{errors.New("want at least one FILE")}
			}
			return nil
		},
	}
	how.overrides = overrides(cmd)
	cmd.Flags().BoolVar(&how.live, "live", false, "have a worker look at what the rollout would need")
	cmd.Flags().StringVar(&how.queue, "task-queue", workflows.TaskQueue, "`name` of the workers' task queue, for --live")
	cmd.RunE = func(cmd *cobra.Command, files []string) error {
		if !how.live && cmd.Flags().Changed("task-queue") {
			return usageError{errors.New("--task-queue is for --live")}
		}
		return a.checkFiles(cmd.Context(), files, how)
	}
	return cmd
}

func (a *app) checkFiles(ctx context.Context, files []string, how linting) error {
	var (
		results []checked
		bad     int
		good    []rollout.Spec
		at      []int // of good, in results
	)
	for _, file := range files {
		spec, err := load(file, *how.overrides)
		r := checked{File: file, OK: err == nil, Agent: spec.Agent, Stages: len(spec.Stages), Problems: problems(err)}
		if err != nil {
			bad++
		} else {
			good, at = append(good, spec), append(at, len(results))
		}
		results = append(results, r)
	}
	broken := 0
	if how.live && len(good) > 0 {
		found, err := a.inspect(ctx, good, how.queue)
		if err != nil {
			return err
		}
		for i, remarks := range found {
			r := &results[at[i]]
			if r.Live = remarks; severe(remarks) {
				r.OK = false
				broken++
			}
		}
	}
	err := a.emit(results, func() { a.sayChecked(results) })
	switch {
	case err != nil:
		return err
	case bad > 0:
		return usageError{badFile{fmt.Errorf("%d of %d files can't be used", bad, len(files))}}
	case broken > 0:
		return fmt.Errorf("%d of %d rollouts would not work", broken, len(files))
	}
	return nil
}

func (a *app) sayChecked(results []checked) {
	for _, r := range results {
		if r.OK {
			a.say("%s: ok, %s for %s", r.File, stagesOf(r.Stages), r.Agent)
		}
		for _, p := range r.Problems {
			_, _ = fmt.Fprintln(a.Err, p)
		}
		for _, remark := range r.Live {
			where := remark.Path
			if where != "" {
				where += ": "
			}
			if remark.Level == rollout.RemarkError {
				_, _ = fmt.Fprintf(a.Err, "%s: %s%s\n", r.File, where, remark.Text)
				continue
			}
			a.say("  %-8s %s%s", remark.Level, where, remark.Text)
		}
	}
}

func severe(remarks []rollout.Remark) bool {
	for _, r := range remarks {
		if r.Level == rollout.RemarkError {
			return true
		}
	}
	return false
}

// inspectLimit is how long a worker may take to look at what one rollout would need.
const inspectLimit = 2 * time.Minute

// inspect has a worker look at what rollouts would need.
func (a *app) inspect(ctx context.Context, specs []rollout.Spec, queue string) ([][]rollout.Remark, error) {
	s, err := a.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer s.temporal.Close()
	if polls, err := s.workerPolls(ctx, queue); err != nil {
		return nil, err
	} else if !polls {
		return nil, fmt.Errorf("no worker polls task queue %s, and only a worker can look: start one, or name its queue with --task-queue", queue)
	}
	out := make([][]rollout.Remark, len(specs))
	for i, spec := range specs {
		if out[i], err = s.inspect(ctx, spec, queue); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (s *session) inspect(ctx context.Context, spec rollout.Spec, queue string) ([]rollout.Remark, error) {
	ctx, cancel := context.WithTimeout(ctx, inspectLimit)
	defer cancel()
	run, err := s.temporal.ExecuteWorkflow(ctx, workflows.CheckOptions(spec, queue), workflows.CheckName, spec)
	if err != nil {
		return nil, s.explain("check "+spec.Agent, err)
	}
	var remarks []rollout.Remark
	switch err := run.Get(ctx, &remarks); {
	case err == nil:
		return remarks, nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return nil, fmt.Errorf("no worker has said within %s what %s would need: is the worker of this version? It is workflow %s", inspectLimit, spec.Agent, run.GetID())
	default:
		return nil, s.explain("check "+spec.Agent, err)
	}
}

// problems are the single problems of an error of config.
func problems(err error) []string {
	var all config.Problems
	if !errors.As(err, &all) {
		if err == nil {
			return nil
		}
		return []string{err.Error()}
	}
	out := make([]string, len(all))
	for i, p := range all {
		out[i] = p.String()
	}
	return out
}
