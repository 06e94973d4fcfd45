package workflows

import (
	"encoding/json"
	"errors"
	"strings"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"

	"github.com/aviary-rollouts/aviary/rollout"
)

// inbox is one signal's channel and what came through it.
type inbox struct {
	signal  rollout.Signal
	channel workflow.ReceiveChannel
	asks    []rollout.Ask
}

// receive takes all that is there.
func (in *inbox) receive() {
	for {
		// RawValue: a payload that can't be decoded into anything else is dropped without a word, and an abort must not be.
		var raw converter.RawValue
		if !in.channel.ReceiveAsync(&raw) {
			return
		}
		in.asks = append(in.asks, decodeAsk(raw))
	}
}

// restrains reports whether a signal can only hold traffic back.
func restrains(s rollout.Signal) bool {
	return s == rollout.SignalAbort || s == rollout.SignalViolation || s == rollout.SignalPause
}

// takeSignals applies the pending signals that which accepts, in the order of rollout.Signals.
func (c *canary) takeSignals(which func(rollout.Signal) bool) {
	for i := range c.signals {
		in := &c.signals[i]
		if !which(in.signal) {
			continue
		}
		in.receive()
		asks := in.asks
		in.asks = nil
		for _, ask := range asks {
			c.apply(rollout.Asked{Signal: in.signal, Ask: ask})
		}
	}
}

// handle registers every handler. It comes before anything that blocks.
func (c *canary) handle(ctx workflow.Context) error {
	err := errors.Join(
		workflow.SetQueryHandlerWithOptions(ctx, QueryStatus, func() (rollout.Status, error) { return c.state.Status(), nil },
			workflow.QueryHandlerOptions{Description: "where the rollout stands"}),
		workflow.SetQueryHandlerWithOptions(ctx, QueryDecisions, func() ([]rollout.Decision, error) { return c.state.Decisions, nil },
			workflow.QueryHandlerOptions{Description: "every decision with its evidence, oldest first"}),
		workflow.SetQueryHandlerWithOptions(ctx, QuerySeries, func() ([]rollout.Point, error) { return c.state.Series, nil },
			workflow.QueryHandlerOptions{Description: "the measured series, oldest first"}),
	)
	for _, signal := range rollout.Signals() {
		channel := workflow.GetSignalChannelWithOptions(ctx, string(signal), workflow.SignalChannelOptions{Description: meaning(signal)})
		c.signals = append(c.signals, inbox{signal: signal, channel: channel})
		err = errors.Join(err, c.handleUpdate(ctx, signal))
	}
	return err
}

// handleUpdate registers the update of a signal's name. Unlike the signal it is refused when it would have no effect, and
// answers with the Status it leads to.
func (c *canary) handleUpdate(ctx workflow.Context, signal rollout.Signal) error {
	update := func(_ workflow.Context, raw converter.RawValue) (rollout.Status, error) {
		c.apply(rollout.Asked{Signal: signal, Ask: decodeAsk(raw)})
		c.poke.SendAsync(nil) // the loop waits for the task and timer of before
		return c.state.Status(), nil
	}
	validate := func(raw converter.RawValue) error {
		if why := c.state.Refusal(signal, decodeAsk(raw)); why != "" {
			return errors.New(why)
		}
		return nil
	}
	return workflow.SetUpdateHandlerWithOptions(ctx, string(signal), update, workflow.UpdateHandlerOptions{
		Validator: validate, Description: meaning(signal),
	})
}

func meaning(s rollout.Signal) string {
	switch s {
	case rollout.SignalAbort:
		return "give all traffic back to stable and end"
	case rollout.SignalViolation:
		return "report a safety violation: give all traffic back to stable and end"
	case rollout.SignalPause:
		return "stop advancing; watching and rolling back go on"
	case rollout.SignalResume:
		return "go on after a pause"
	case rollout.SignalApprove:
		return "let the stage that waits for it pass"
	case rollout.SignalPromote:
		return "end the stage now, or with {\"full\": true} all of them"
	case rollout.SignalRetry:
		return "restore again now instead of waiting"
	}
	return ""
}

// Longest texts that are kept of what people send, in bytes.
const (
	maxBy     = 100
	maxReason = 500
)

// payload is a signal's payload as far as it can be understood.
type payload struct{ ask rollout.Ask }

// UnmarshalJSON takes an object, field by field, or a string as the reason. It never fails: the signal's name says enough.
func (p *payload) UnmarshalJSON(b []byte) error {
	var fields map[string]json.RawMessage
	if json.Unmarshal(b, &fields) == nil {
		p.ask.By, p.ask.Reason = text(fields["by"]), text(fields["reason"])
		p.ask.Full = string(fields["full"]) == "true"
		return nil
	}
	p.ask.Reason = text(b)
	return nil
}

// text is a JSON string's value, and empty for anything else.
func text(b []byte) string {
	var s string
	if json.Unmarshal(b, &s) != nil {
		return ""
	}
	return s
}

// decodeAsk understands as much of a payload as there is to understand.
func decodeAsk(raw converter.RawValue) rollout.Ask {
	if raw.Payload() == nil {
		return rollout.Ask{}
	}
	var p payload
	if converter.GetDefaultDataConverter().FromPayload(raw.Payload(), &p) != nil {
		return rollout.Ask{}
	}
	return rollout.Ask{By: line(p.ask.By, maxBy), Reason: line(p.ask.Reason, maxReason), Full: p.ask.Full}
}

// line is s on one line, with at most limit bytes.
func line(s string, limit int) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > limit {
		s = s[:limit-len("…")] + "…"
	}
	return strings.ToValidUTF8(s, "")
}
