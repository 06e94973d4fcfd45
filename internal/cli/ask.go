package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/aviary-rollouts/aviary/rollout"
	"github.com/aviary-rollouts/aviary/workflows"
)

// wish is a command that asks something of a running rollout.
type wish struct {
	signal rollout.Signal
	short  string
	long   string
	done   string // what is said when it was taken
	// durable: when no worker answers, it is left as a signal, which waits for one.
	durable bool
}

func wishes() []wish {
	return []wish{
		{rollout.SignalPause, "Stop advancing; watching and rolling back go on", "", "is paused", true},
		{rollout.SignalResume, "Let a paused rollout go on", "", "goes on", false},
		{rollout.SignalAbort, "Take the canary back to stable now", `Take the canary back to stable now. Abort wins over everything else: a pause, an approval, a promotion.
When no worker answers, the abort is left with Temporal as a signal, and the first worker that comes carries it out.`, "is being taken back", true},
		{rollout.SignalApprove, "Let a stage pass that asks for a human", "", "is approved", false},
		{rollout.SignalPromote, "Go on to the next stage now; with --full, to everyone", "", "is promoted", false},
		{rollout.SignalRetry, "Try at once to restore stable, where that is blocked", "", "is tried again", false},
		{rollout.SignalViolation, "Report a safety violation: the canary is taken back now", "", "is being taken back", true},
	}
}

func (a *app) asks() []*cobra.Command {
	var out []*cobra.Command
	for _, w := range wishes() {
		var ask rollout.Ask
		cmd := &cobra.Command{
			Use: string(w.signal) + " AGENT", Short: w.short, Long: w.long, GroupID: groupAsk,
			Args: one("AGENT"), ValidArgsFunction: a.completeAgents,
			RunE: func(cmd *cobra.Command, args []string) error { return a.ask(cmd.Context(), w, args[0], ask) },
		}
		cmd.Flags().StringVar(&ask.By, "by", a.User, "`name` of who asks")
		cmd.Flags().StringVar(&ask.Reason, "reason", "", "`text` that is kept with the decision")
		if w.signal == rollout.SignalPromote {
			cmd.Flags().BoolVar(&ask.Full, "full", false, "skip all stages that are left")
		}
		out = append(out, cmd)
	}
	return out
}

// asked is what became of a wish.
type asked struct {
	Agent  string          `json:"agent"`
	Asked  rollout.Signal  `json:"asked"`
	By     string          `json:"by"`
	Via    string          `json:"via"` // update: a worker took it; signal: Temporal keeps it for the next worker
	Status *rollout.Status `json:"status,omitempty"`
}

func (a *app) ask(ctx context.Context, w wish, arg string, ask rollout.Ask) error {
	agent, err := agentOf(arg)
	if err != nil {
		return err
	}
	s, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer s.temporal.Close()
	what := fmt.Sprintf("%s %s", w.signal, agent)
	result := asked{Agent: agent, Asked: w.signal, By: ask.By, Via: "update"}
	st, err := s.update(ctx, agent, w.signal, ask)
	var refusal *temporal.ApplicationError
	switch {
	case err == nil:
		result.Status = &st
	case ctx.Err() != nil:
		return fmt.Errorf("%s: interrupted before an answer came; `starter status %s` shows whether it arrived", what, agent)
	case errors.As(err, &refusal) && refusal.Type() == endedMeanwhile, notFound(err):
		return s.askedTooLate(ctx, what, agent)
	case errors.As(err, &refusal):
		return fmt.Errorf("%s: %s", what, clean(refusal.Message()))
	case !w.durable && noAnswer(err):
		return fmt.Errorf("%s: no worker answered within %s; start one and ask again", what, answerLimit)
	case !w.durable:
		return s.explain(what, err)
	default:
		if err := s.signal(ctx, agent, w.signal, ask); err != nil {
			return s.explain(what, err)
		}
		result.Via = "signal"
	}
	return a.emit(result, func() { a.sayAsked(s, w, result) })
}

// endedMeanwhile is the type of Temporal's error for an update that the workflow's end overtook.
const endedMeanwhile = "AcceptedUpdateCompletedWorkflow"

// askedTooLate says how the rollout ended that something was asked of, or that there is none.
func (s *session) askedTooLate(ctx context.Context, what, agent string) error {
	l, err := s.look(ctx, agent)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", what, err)
	case l.cutOff() != "":
		return fmt.Errorf("%s: the rollout has ended: its workflow was closed as %s", what, l.cutOff())
	}
	return fmt.Errorf("%s: the rollout has ended: %s", what, l.Status.Phase)
}

func (a *app) sayAsked(s *session, w wish, r asked) {
	if r.Status == nil {
		a.say("%s: no worker answered within %s, so Temporal keeps the %s as a signal: the first worker that comes acts on it.", r.Agent, answerLimit, w.signal)
		a.say("Until then the canary's lease, if it has one, is what takes traffic back. `starter status %s` shows what came of it.", r.Agent)
		return
	}
	a.say("%s %s: %s", r.Agent, w.done, brief(*r.Status))
	if link := s.link(r.Agent); link != "" {
		a.say("%s", link)
	}
}

// brief is a status in a few words.
func brief(st rollout.Status) string {
	out := fmt.Sprintf("%s, stage %s, %s of traffic on %s", words(rollout.Verdict(st.Phase)), stageOf(st), st.Share(), st.Canary)
	if st.Phase.Terminal() {
		out = Outcome(st)
	}
	return clean(out)
}

// update asks through an update: a refusal comes back, and so does the status afterwards.
func (s *session) update(ctx context.Context, agent string, signal rollout.Signal, ask rollout.Ask) (rollout.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	var st rollout.Status
	handle, err := s.temporal.UpdateWorkflow(ctx, client.UpdateWorkflowOptions{
		WorkflowID: workflows.WorkflowID(agent), UpdateName: string(signal), Args: []any{ask}, WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	if err != nil {
		return st, err
	}
	return st, handle.Get(ctx, &st)
}

func (s *session) signal(ctx context.Context, agent string, signal rollout.Signal, ask rollout.Ask) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	return s.temporal.SignalWorkflow(ctx, workflows.WorkflowID(agent), "", string(signal), ask)
}
