package api

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
)

// maxAnswer bounds what the client reads of one answer, in bytes.
const maxAnswer = 16 << 20

// Client speaks to the admin API of one router. It is safe for concurrent use.
type Client struct {
	base  *url.URL
	token string
	http  *http.Client
}

// Option changes a Client.
type Option func(*Client)

// WithHTTPClient sends the requests through c, whose Timeout then applies. The default has a timeout of 5 s.
func WithHTTPClient(c *http.Client) Option { return func(x *Client) { x.http = c } }

// WithTimeout bounds every call, the body included. The default is 5 s.
func WithTimeout(d time.Duration) Option {
	return func(x *Client) {
		c := *x.http
		c.Timeout = d
		x.http = &c
	}
}

// NewClient is a client for the admin API at address, an http or https URL such as "http://127.0.0.1:9901", or host:port for
// http. Token is the admin token, or for Feedback alone the feedback token.
func NewClient(address, token string, options ...Option) (*Client, error) {
	if !strings.Contains(address, "://") {
		address = "http://" + address
	}
	base, err := url.Parse(address)
	if err != nil {
		return nil, errors.New("router address is not a URL: want http://host:port")
	}
	if (base.Scheme != "http" && base.Scheme != "https") || base.Host == "" || base.RawQuery != "" || base.Fragment != "" {
		return nil, fmt.Errorf("router address %q: want http://host:port or https://host:port", base.Redacted())
	}
	c := &Client{base: base, token: token, http: &http.Client{Timeout: 5 * time.Second}}
	for _, o := range options {
		o(c)
	}
	return c, nil
}

// Address is the base URL without any secret in it.
func (c *Client) Address() string { return c.base.Redacted() }

// PutRoute makes route the agent's whole desired state and answers what the router now sees. The same route again renews the
// lease. Errors: *Conflict, *Error, or a fault of the connection.
func (c *Client) PutRoute(ctx context.Context, agent string, route Route) (Observed, error) {
	var out Observed
	return out, c.do(ctx, http.MethodPut, c.path("v1", "routes", agent), nil, route, &out)
}

// Route is what the router sees of one agent. Errors: *Error, or a fault of the connection.
func (c *Client) Route(ctx context.Context, agent string) (Observed, error) {
	var out Observed
	return out, c.do(ctx, http.MethodGet, c.path("v1", "routes", agent), nil, nil, &out)
}

// Routes is what the router sees of every agent. Errors: *Error, or a fault of the connection.
func (c *Client) Routes(ctx context.Context) (Routes, error) {
	var out Routes
	return out, c.do(ctx, http.MethodGet, c.path("v1", "routes"), nil, nil, &out)
}

// Agents is the registry. Errors: *Error, or a fault of the connection.
func (c *Client) Agents(ctx context.Context) (Agents, error) {
	var out Agents
	return out, c.do(ctx, http.MethodGet, c.path("v1", "agents"), nil, nil, &out)
}

// PutVersion adds or replaces a version, and the agent if it is new; the first version of a new agent is its stable one.
// Errors: *Error, or a fault of the connection.
func (c *Client) PutVersion(ctx context.Context, agent, version string, v Version) (Agent, error) {
	var out Agent
	return out, c.do(ctx, http.MethodPut, c.path("v1", "agents", agent, "versions", version), nil, v, &out)
}

// DeleteVersion removes a version that is neither stable nor canary. Errors: *Error, or a fault of the connection.
func (c *Client) DeleteVersion(ctx context.Context, agent, version string) error {
	return c.do(ctx, http.MethodDelete, c.path("v1", "agents", agent, "versions", version), nil, nil, nil)
}

// Counters are the cumulative numbers of an agent's versions. Errors: *Error, or a fault of the connection.
func (c *Client) Counters(ctx context.Context, agent string) (Counters, error) {
	var out Counters
	return out, c.do(ctx, http.MethodGet, c.path("v1", "counters"), url.Values{"agent": {agent}}, nil, &out)
}

// Feedback reports how a conversation went. Errors: *Error, or a fault of the connection.
func (c *Client) Feedback(ctx context.Context, f Feedback) (FeedbackResult, error) {
	var out FeedbackResult
	return out, c.do(ctx, http.MethodPost, c.path("v1", "feedback"), nil, f, &out)
}

// Ready is nil when the router serves. Errors: *Error, or a fault of the connection.
func (c *Client) Ready(ctx context.Context) error {
	return c.do(ctx, http.MethodGet, c.path("readyz"), nil, nil, nil)
}

func (c *Client) path(elements ...string) *url.URL {
	for i, e := range elements {
		elements[i] = url.PathEscape(e)
	}
	return c.base.JoinPath(elements...)
}

func (c *Client) do(ctx context.Context, method string, u *url.URL, query url.Values, in, out any) error {
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encode %s %s: %w", method, u.Path, err)
		}
		body = bytes.NewReader(raw)
	}
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return fmt.Errorf("make request %s %s: %w", method, u.Path, err)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("ask the router: %w", redact(err))
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return fmt.Errorf("read the router's answer to %s %s: %w", method, u.Path, err)
	}
	if len(raw) > maxAnswer {
		return fmt.Errorf("read the router's answer to %s %s: more than %d bytes", method, u.Path, maxAnswer)
	}
	if resp.StatusCode/100 != 2 {
		return answerError(resp, raw)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return fmt.Errorf("decode the router's answer to %s %s: %w", method, u.Path, err)
	}
	return nil
}

// redact takes a password in the address out of the transport's error.
func redact(err error) error {
	var u *url.Error
	if !errors.As(err, &u) {
		return err
	}
	clean := *u
	if parsed, perr := url.Parse(u.URL); perr == nil {
		clean.URL = parsed.Redacted()
	}
	return &clean
}

// answerError turns an answer into a *Conflict or an *Error. An answer that is not the API's (a proxy's page) has the code "".
func answerError(resp *http.Response, raw []byte) error {
	var body ErrorBody
	if json.Unmarshal(raw, &body) != nil || body.Code == "" {
		body = ErrorBody{Error: strings.TrimSpace(string(raw[:min(len(raw), 200)]))}
	}
	if body.Code == CodeOwnershipLost {
		conflict := &Conflict{Owner: body.Owner, Message: body.Error}
		if body.Revision != nil {
			conflict.Revision = *body.Revision
		}
		return conflict
	}
	return &Error{
		Status: resp.StatusCode, Code: body.Code, Message: body.Error, Known: body.Known,
		RetryAfter: retryAfter(resp.Header.Get("Retry-After"), time.Now()),
	}
}

// retryAfter reads a Retry-After header in either form; 0 when absent, past or unreadable.
func retryAfter(s string, now time.Time) time.Duration {
	if n, err := strconv.Atoi(s); err == nil {
		return max(0, time.Duration(n)*time.Second)
	}
	if t, err := http.ParseTime(s); err == nil {
		return max(0, t.Sub(now))
	}
	return 0
}
