package router

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/aviary-rollouts/aviary/router/api"
	"github.com/aviary-rollouts/aviary/router/upstream"
)

// Reconfigure takes over agents as the settings name them now: all of them, or with an error none. Versions registered through
// the admin API, routes, pins and promotions stay. A stable version that the settings did not change stays what it is, promoted
// or not. Errors name what is in use by a rollout, or can't be.
func (r *Router) Reconfigure(agents map[string]AgentOptions) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(agents)) {
		errs = append(errs, r.mayConfigure(name, agents[name])...)
	}
	for name, s := range r.agents {
		if _, ok := agents[name]; !ok && s.configured != "" && s.live(r.clock.Mono()) {
			errs = append(errs, fmt.Errorf("agent %s is in use by rollout %s: it can't be taken out", name, s.route.Owner))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for name, s := range r.agents {
		if _, ok := agents[name]; !ok && s.configured != "" {
			delete(r.agents, name)
			r.log.Info("agent taken out by the settings", "agent", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(agents)) {
		if err := r.configure(name, agents[name]); err != nil {
			errs = append(errs, err) // mayConfigure has let it pass
		}
	}
	r.publish()
	r.unsaved = true
	if err := r.save(); err != nil {
		errs = append(errs, fmt.Errorf("%w: %w", ErrNotSaved, err))
	}
	return errors.Join(errs...)
}

// ErrNotSaved is the error of a change that is in force, and that a restart would forget. Tick tries to save it again.
var ErrNotSaved = errors.New("in force, but not saved")

// mayConfigure finds everything that keeps the settings of one agent from being taken over.
func (r *Router) mayConfigure(name string, o AgentOptions) (errs []error) {
	for _, version := range slices.Sorted(maps.Keys(o.Versions)) {
		if _, err := checkVersion(name, version, o.Versions[version]); err != nil {
			errs = append(errs, err)
		}
	}
	if _, ok := o.Versions[o.Stable]; !ok {
		errs = append(errs, fmt.Errorf("stable %q of agent %s: want one of %q", o.Stable, name, slices.Sorted(maps.Keys(o.Versions))))
	}
	flagd, err := hashIsFlagd(o.Hash)
	if err != nil {
		errs = append(errs, fmt.Errorf("agent %s: %w", name, err))
	}
	if err := o.Limits.Check(); err != nil {
		errs = append(errs, fmt.Errorf("limits of agent %s: %w", name, err))
	}
	s := r.agents[name]
	if s == nil {
		return errs
	}
	live := s.live(r.clock.Mono())
	if live && flagd != s.flagd {
		errs = append(errs, fmt.Errorf("hash of agent %s can't change: rollout %s is live, whose conversations it would move", name, s.route.Owner))
	}
	if live && s.configured != o.Stable {
		errs = append(errs, fmt.Errorf("stable of agent %s can't become %s: rollout %s is live", name, o.Stable, s.route.Owner))
	}
	if live && s.route.Mirror > 0 && o.SideEffects {
		errs = append(errs, fmt.Errorf("side_effects of agent %s: rollout %s mirrors its requests just now", name, s.route.Owner))
	}
	for version, v := range s.versions {
		spec, stays := o.Versions[version]
		stays = stays || !v.fixed
		switch {
		case stays:
			if err := r.renamed(s, version, spec); err != nil {
				errs = append(errs, err)
			}
		case version == s.stable && s.configured == o.Stable:
			errs = append(errs, fmt.Errorf("version %s of agent %s was promoted and is its stable one: it can't be taken out before stable changes", version, name))
		case live && version == s.route.Canary:
			errs = append(errs, fmt.Errorf("version %s of agent %s is the canary of rollout %s: it can't be taken out", version, name, s.route.Owner))
		}
	}
	return errs
}

// configure takes over the settings of one agent, which mayConfigure has let pass.
func (r *Router) configure(name string, o AgentOptions) error {
	s := r.agents[name]
	if s == nil {
		return r.addConfigured(name, o)
	}
	flagd, err := hashIsFlagd(o.Hash)
	if err != nil {
		return fmt.Errorf("agent %s: %w", name, err)
	}
	before, versions := s.versions, map[string]*Version{}
	for version, v := range before {
		if _, named := o.Versions[version]; !named && !v.fixed {
			v.upstreams.Update(v.upstreams.URLs(), o.Limits)
			versions[version] = v
		}
	}
	for _, version := range slices.Sorted(maps.Keys(o.Versions)) {
		v, err := r.configured(name, version, o.Versions[version], o.Limits, before[version])
		if err != nil {
			return err
		}
		versions[version] = v
	}
	if s.configured != o.Stable {
		r.log.Warn("stable version by the settings, which changed", "agent", name, "stable", o.Stable, "before", s.stable)
		s.stable, s.configured = o.Stable, o.Stable
	}
	s.versions, s.flagd, s.limits, s.sideEffects = versions, flagd, o.Limits, o.SideEffects
	return nil
}

// configured is a version of the settings.
func (r *Router) configured(agent, version string, o api.Version, limits upstream.Limits, old *Version) (*Version, error) {
	urls, err := checkVersion(agent, version, o)
	if err != nil {
		return nil, err
	}
	v := r.newVersion(agent, version, urls, o, limits, old)
	v.fixed = true
	return v, nil
}
