// Package webhook drives the traffic of anything that takes a route as JSON over HTTP: a load balancer's own controller, a feature flag
// service, an edge platform. docs/webhook.md is the contract that a receiver keeps; examples/webhook-receiver is one.
package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/aviary-rollouts/aviary/activities/traffic"
	"github.com/aviary-rollouts/aviary/internal/httpx"
	"github.com/aviary-rollouts/aviary/rollout"
)

const (
	// callTimeout bounds one call unless the settings say otherwise.
	callTimeout = 5 * time.Second
	// defaultPause is how long to wait when a receiver is busy and does not say for how long.
	defaultPause = 5 * time.Second
	maxBody      = 1 << 20 // of an answer, in bytes
	maxText      = 300     // of a receiver's text in an error, in bytes
)

// Settings of a Driver.
type Settings struct {
	URL       string            // of the receiver, without /v1; it is never told in an error beyond its host
	Secret    string            // shared with the receiver
	Timeout   time.Duration     // of one call; 0: 5 s
	Transport http.RoundTripper // underneath; nil: a transport of its own
}

// Driver sets and reads routes at one receiver. It is safe for concurrent use.
type Driver struct {
	base   *url.URL
	secret []byte
	client *http.Client
}

var _ traffic.Driver = (*Driver)(nil)

// New is a Driver. Errors: a URL that is not http or https, or no secret.
func New(s Settings) (*Driver, error) {
	u, err := url.Parse(strings.TrimRight(s.URL, "/"))
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, errors.New("webhook driver: the address is no URL, want http://… or https://…")
	}
	if s.Secret == "" {
		return nil, errors.New("webhook driver: no secret, want one that the receiver knows")
	}
	if s.Timeout == 0 {
		s.Timeout = callTimeout
	}
	client := httpx.NewClient(httpx.Settings{Timeout: s.Timeout, MaxBody: maxBody, Transport: s.Transport})
	// A signature is of one path: nothing is followed elsewhere.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Driver{base: u, secret: []byte(s.Secret), client: client}, nil
}

// Capabilities of a receiver that keeps the contract: every basis point, with a lease.
func (d *Driver) Capabilities() traffic.Capabilities {
	return traffic.Capabilities{Step: 1, Sticky: "receiver", Lease: true}
}

// Apply sends the route and reads it back.
func (d *Driver) Apply(ctx context.Context, r rollout.Route) error {
	if err := check(r); err != nil {
		return err
	}
	want := wire(r)
	body, err := json.Marshal(want)
	if err != nil {
		return &traffic.Rejected{Reason: "encode the route: " + err.Error()}
	}
	if err := d.call(ctx, http.MethodPut, path(r.Agent), body, nil); err != nil {
		return d.explain(ctx, r.Agent, "set the route", err)
	}
	got, err := d.read(ctx, r.Agent)
	switch {
	case err != nil:
		return fmt.Errorf("read the route back: %w", d.explain(ctx, r.Agent, "read the route", err))
	case got.Owner == want.Owner && got.Revision > want.Revision:
		return &traffic.OwnershipLost{Agent: r.Agent, Owner: got.Owner, Revision: got.Revision}
	// Another owner is no loss yet: this one's route was just taken. Whoever it is, the next try is refused if the route is theirs.
	case got.Stable != want.Stable || got.Canary != want.Canary || got.Weight != want.Weight || got.Effective != want.Weight || got.Owner != want.Owner ||
		got.Revision != want.Revision:
		return fmt.Errorf("set the route of agent %s: it reads back %s → %q at weight %d (%d in force), owner %q, revision %d", r.Agent, got.Stable, got.Canary,
			got.Weight, got.Effective, got.Owner, got.Revision)
	}
	return nil
}

// Read is what the receiver says of route's agent.
func (d *Driver) Read(ctx context.Context, r rollout.Route) (traffic.Observed, error) {
	if !rollout.ValidName(r.Agent) {
		return traffic.Observed{}, &traffic.Rejected{Reason: fmt.Sprintf("agent %q: want %s", r.Agent, rollout.NamePattern)}
	}
	o, err := d.read(ctx, r.Agent)
	if err != nil {
		return traffic.Observed{}, d.explain(ctx, r.Agent, "read the route", err)
	}
	return o.traffic(), nil
}

// List is what the receiver says of all its agents, but for those of which it makes no sense.
func (d *Driver) List(ctx context.Context) ([]traffic.Observed, error) {
	var all list
	if err := d.call(ctx, http.MethodGet, "/v1/agents", nil, &all); err != nil {
		return nil, d.explain(ctx, "*", "list the routes", err)
	}
	out := []traffic.Observed{}
	for _, o := range all.Agents {
		if o.check(o.Agent) == nil { // a receiver may serve others besides, and one nonsense must not hide the rest
			out = append(out, o.traffic())
		}
	}
	return out, nil
}

func (d *Driver) read(ctx context.Context, agent string) (observed, error) {
	var o observed
	if err := d.call(ctx, http.MethodGet, path(agent), nil, &o); err != nil {
		return observed{}, err
	}
	return o, o.check(agent)
}

// check wants an answer that is about the agent and makes sense.
func (o observed) check(agent string) error {
	full := int(rollout.FullWeight)
	if o.Agent != agent || !rollout.ValidName(o.Agent) || o.Weight < 0 || o.Weight > full || o.Effective < 0 || o.Effective > full {
		return fmt.Errorf("the answer makes no sense: agent %.70q, weight %d, in force %d; want agent %s and weights from 0 to %d", o.Agent, o.Weight, o.Effective, agent, full)
	}
	return nil
}

func path(agent string) string { return "/v1/agents/" + agent + "/route" }

func check(r rollout.Route) error {
	reject := func(format string, args ...any) error {
		return &traffic.Rejected{Reason: fmt.Sprintf(format, args...)}
	}
	switch {
	case !rollout.ValidName(r.Agent):
		return reject("agent %q: want %s", r.Agent, rollout.NamePattern)
	case !rollout.ValidName(r.Stable):
		return reject("stable %q: want %s", r.Stable, rollout.NamePattern)
	case r.Canary != "" && !rollout.ValidName(r.Canary):
		return reject("canary %q: want %s, or none", r.Canary, rollout.NamePattern)
	case r.Weight < 0 || r.Weight > rollout.FullWeight:
		return reject("weight %d: want basis points from 0 to %d", int(r.Weight), int(rollout.FullWeight))
	case r.Weight > 0 && r.Canary == "":
		return reject("weight %d without a canary", int(r.Weight))
	case r.Mirror != 0:
		return reject("mirror %d: a receiver copies nothing", int(r.Mirror))
	case r.Lease < 0:
		return reject("lease %s: want 0 or more", r.Lease)
	}
	return nil
}

// answer is a response that was not 2xx.
type answer struct {
	status int
	pause  time.Duration
	failure
}

func (e *answer) Error() string {
	if e.failure.Error == "" {
		return fmt.Sprintf("it answered %d", e.status)
	}
	return fmt.Sprintf("it answered %d: %s", e.status, e.failure.Error)
}

// call sends one signed request and decodes the answer into out, if out is not nil. Errors: *answer, or a fault on the way.
func (d *Driver) call(ctx context.Context, method, at string, body []byte, out any) error {
	u := d.base.JoinPath(at)
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return httpx.Redact(err)
	}
	stamp := strconv.FormatInt(time.Now().Unix(), 10)
	req.Header.Set("User-Agent", "aviary")
	req.Header.Set("Accept", "application/json")
	req.Header.Set(HeaderTimestamp, stamp)
	req.Header.Set(HeaderSignature, Sign(d.secret, stamp, method, req.URL.EscapedPath(), body))
	if method == http.MethodPut {
		req.Header.Set("Content-Type", "application/json")
		// A renewal is a request of its own, so the key is of the call, not of the route.
		req.Header.Set(HeaderKey, uuid.NewString())
	}
	resp, err := d.client.Do(req)
	if err != nil {
		return httpx.Redact(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("read the answer: %w", httpx.Redact(err))
	}
	if resp.StatusCode/100 != 2 {
		e := &answer{status: resp.StatusCode, pause: httpx.RetryAfter(resp.Header, time.Now())}
		if json.Unmarshal(text, &e.failure) != nil {
			e.failure = failure{} // some proxy's page
		}
		e.failure.Error = clip(e.failure.Error)
		return e
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("the answer is not as the contract says: %w", err)
	}
	return nil
}

// clip is at most maxText bytes of s on one line.
func clip(s string) string {
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "?")), " ")
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + "…"
	}
	return s
}

// explain makes an error of the port: *traffic.OwnershipLost, *traffic.Rejected, *traffic.Busy or a passing fault.
func (d *Driver) explain(ctx context.Context, agent, doing string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	err = fmt.Errorf("%s of agent %s at the webhook %s: %w", doing, agent, httpx.Host(d.base.String()), err)
	var a *answer
	if !errors.As(err, &a) {
		return err
	}
	switch a.status {
	case http.StatusConflict:
		if a.Owner != "" {
			return &traffic.OwnershipLost{Agent: agent, Owner: a.Owner, Revision: a.Revision}
		}
		return err
	case http.StatusBadRequest, http.StatusNotFound, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		if a.failure.Error == "" { // some proxy's page, while the receiver is being deployed
			return err
		}
		return &traffic.Rejected{Reason: err.Error()}
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("%w; does the receiver know the secret of the worker's settings, and is its clock right?", err)
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		if a.pause == 0 && a.status == http.StatusTooManyRequests {
			a.pause = defaultPause
		}
		if a.pause > 0 {
			return &traffic.Busy{RetryAfter: a.pause, Err: err}
		}
	}
	return err
}
