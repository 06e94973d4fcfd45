package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"
)

// completeLimit is how long a shell waits for completions.
const completeLimit = 2 * time.Second

// completeAgents offers the agents that have a rollout now. Without Temporal it offers nothing.
func (a *app) completeAgents(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completeLimit)
	defer cancel()
	s, err := a.connect(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer s.temporal.Close()
	infos, _, err := s.executions(ctx, 100, true)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var agents []string
	for _, info := range infos {
		agents = append(agents, remembered(info).Agent)
	}
	return agents, cobra.ShellCompDirectiveNoFileComp
}
