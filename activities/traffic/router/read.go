package router

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/aviary-rollouts/aviary/activities/traffic"
	"github.com/aviary-rollouts/aviary/rollout"
	"github.com/aviary-rollouts/aviary/router/api"
)

// Read is what the replicas say of route's agent. As long as one answers, replicas that don't are named in Lagging, like those that
// differ. Errors: *traffic.Rejected if nobody who answers knows the agent; a passing fault if nobody answers.
func (d *Driver) Read(ctx context.Context, route rollout.Route) (traffic.Observed, error) {
	agent := route.Agent
	if !rollout.ValidName(agent) {
		return traffic.Observed{}, &traffic.Rejected{Reason: fmt.Sprintf("agent %q: want %s", agent, rollout.NamePattern)}
	}
	all := d.set.All(ctx)
	answers := make([]*api.Observed, len(all))
	errs := each(all, func(i int, r replica) error {
		o, err := r.Client.Route(ctx, agent)
		if err == nil {
			answers[i] = &o
		}
		return err
	})
	if !slices.ContainsFunc(answers, func(o *api.Observed) bool { return o != nil }) {
		return traffic.Observed{}, unread(all, agent, errs)
	}
	return merge(all, answers), nil
}

// unread is the error when no replica has a route to tell.
func unread(all []replica, agent string, errs []error) error {
	for i, err := range errs {
		var answer *api.Error
		if errors.As(err, &answer) && answer.Code == api.CodeUnknownAgent {
			reason := fmt.Sprintf("agent %q is not known to gateway %s", agent, all[i].Name)
			if len(answer.Known) > 0 {
				reason += ", which knows " + strings.Join(answer.Known, ", ")
			}
			return &traffic.Rejected{Reason: reason}
		}
	}
	return combine(all, agent, "read the route", errs)
}

// List is Read for every agent that any replica knows, sorted by name. Errors: a passing fault if nobody answers.
func (d *Driver) List(ctx context.Context) ([]traffic.Observed, error) {
	all := d.set.All(ctx)
	lists := make([]map[string]api.Observed, len(all))
	errs := each(all, func(i int, r replica) error {
		routes, err := r.Client.Routes(ctx)
		if err != nil {
			return err
		}
		lists[i] = map[string]api.Observed{}
		for _, o := range routes.Routes {
			lists[i][o.Agent] = o
		}
		return nil
	})
	agents := map[string]bool{}
	answered := false
	for _, list := range lists {
		answered = answered || list != nil
		for agent := range list {
			agents[agent] = true
		}
	}
	if !answered {
		return nil, combine(all, "*", "list the routes", errs)
	}
	out := []traffic.Observed{}
	for _, agent := range slices.Sorted(maps.Keys(agents)) {
		answers := make([]*api.Observed, len(lists))
		for i, list := range lists {
			if o, ok := list[agent]; ok {
				answers[i] = &o
			}
		}
		out = append(out, merge(all, answers))
	}
	return out, nil
}

// merge makes one answer of the replicas'; nil stands for none, and at least one is there. The replica that is ahead speaks,
// the weights are the highest of all, and the versions are those that all who answer can send traffic to.
func merge(all []replica, answers []*api.Observed) traffic.Observed {
	var lead *api.Observed
	for _, o := range answers {
		if o != nil && (lead == nil || ahead(o, lead)) {
			lead = o
		}
	}
	out := traffic.Observed{
		Agent: lead.Agent, Stable: lead.Stable, Canary: lead.Canary, Owner: lead.Owner, Revision: lead.Revision,
		LeaseExpired: lead.LeaseExpired, Versions: slices.Clone(lead.Versions),
	}
	for i, o := range answers {
		if o == nil || !same(o, lead) {
			out.Lagging = append(out.Lagging, all[i].Name)
		}
		if o == nil {
			continue
		}
		for _, version := range o.Changed {
			if !slices.Contains(out.Changed, version) {
				out.Changed = append(out.Changed, version)
			}
		}
		out.Mirror, out.SideEffects = max(out.Mirror, rollout.Weight(o.Mirror)), out.SideEffects || o.SideEffects
		out.Weight = max(out.Weight, rollout.Weight(o.Weight))
		out.Effective = max(out.Effective, rollout.Weight(o.EffectiveWeight))
		out.Versions = slices.DeleteFunc(out.Versions, func(v string) bool { return !slices.Contains(o.Versions, v) })
	}
	return out
}

// ahead reports whether a knows more than b: a later revision of the same owner, an owner instead of none, else more weight.
func ahead(a, b *api.Observed) bool {
	switch {
	case a.Owner == b.Owner:
		return a.Revision > b.Revision || a.Revision == b.Revision && a.Weight > b.Weight
	case a.Owner == "" || b.Owner == "":
		return a.Owner != ""
	}
	return a.Weight > b.Weight
}

func same(a, b *api.Observed) bool {
	return a.Stable == b.Stable && a.Canary == b.Canary && a.Weight == b.Weight && a.EffectiveWeight == b.EffectiveWeight && a.Mirror == b.Mirror &&
		a.Owner == b.Owner && a.Revision == b.Revision
}
