package workflows

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"go.temporal.io/sdk/converter"

	"github.com/aviary-rollouts/aviary/activities/notify"
	"github.com/aviary-rollouts/aviary/rollout"
)

// Carried is what a run hands to the next one at continue-as-new. Its form is versioned by State.Version.
type Carried struct {
	State      rollout.State    `json:"state"`
	Attributes bool             `json:"search_attributes,omitempty"` // the namespace knows Aviary's search attributes
	Thread     notify.Thread    `json:"thread,omitempty"`
	Notices    []rollout.Notice `json:"notices,omitempty"` // not told yet
}

func (c *canary) carry() Carried {
	return Carried{State: c.state, Attributes: c.attributes, Thread: c.notices.thread, Notices: c.notices.queue}
}

// strictSpec decodes a Spec that people may have written. Unmarshalling never fails, because what fails there would never reach
// the workflow; fault says what was wrong.
type strictSpec struct {
	spec  rollout.Spec
	fault error
}

// UnmarshalJSON reads a Spec and refuses unknown keys: a misspelt limit must not be a limit that is missing.
func (s *strictSpec) UnmarshalJSON(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	s.fault = d.Decode(&s.spec)
	return nil
}

const wantSpec = "want one rollout as JSON, as `starter render` writes it"

// decodeSpec reads the workflow's input, whatever it is.
func decodeSpec(input converter.RawValue) (rollout.Spec, error) {
	if input.Payload() == nil {
		return rollout.Spec{}, errors.New("the input is missing: " + wantSpec)
	}
	var in strictSpec
	if err := converter.GetDefaultDataConverter().FromPayload(input.Payload(), &in); err != nil {
		return rollout.Spec{}, fmt.Errorf("the input can't be read: %w: %s", err, wantSpec)
	}
	switch {
	case in.fault != nil:
		return in.spec, fmt.Errorf("the input can't be read: %w: %s", in.fault, wantSpec)
	case !rollout.ValidName(in.spec.Agent):
		return in.spec, fmt.Errorf("agent: %q is no name: want %s", in.spec.Agent, rollout.NamePattern)
	case len(in.spec.Stages) == 0:
		return in.spec, errors.New("canary_stages: there are none: want at least one")
	}
	return in.spec, nil
}

// decodeCarried reads what an earlier run left, and refuses what this version of Aviary does not know.
func decodeCarried(raw converter.RawValue) (Carried, error) {
	var was Carried
	if err := converter.GetDefaultDataConverter().FromPayload(raw.Payload(), &was); err != nil {
		return was, fmt.Errorf("the carried state can't be read: %w", err)
	}
	if was.State.Version != rollout.StateVersion {
		return was, fmt.Errorf("the carried state has version %d, this worker knows version %d: run a worker that knows it",
			was.State.Version, rollout.StateVersion)
	}
	return was, nil
}
