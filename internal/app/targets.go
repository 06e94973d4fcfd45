package app

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/aviary-rollouts/aviary/activities"
	"github.com/aviary-rollouts/aviary/activities/metrics"
	httpmetrics "github.com/aviary-rollouts/aviary/activities/metrics/http"
	prommetrics "github.com/aviary-rollouts/aviary/activities/metrics/prometheus"
	routermetrics "github.com/aviary-rollouts/aviary/activities/metrics/router"
	sqlmetrics "github.com/aviary-rollouts/aviary/activities/metrics/sql"
	"github.com/aviary-rollouts/aviary/activities/notify"
	"github.com/aviary-rollouts/aviary/activities/notify/lognotify"
	"github.com/aviary-rollouts/aviary/activities/notify/slack"
	"github.com/aviary-rollouts/aviary/activities/notify/webhook"
	"github.com/aviary-rollouts/aviary/activities/traffic"
	flagdtraffic "github.com/aviary-rollouts/aviary/activities/traffic/flagd"
	"github.com/aviary-rollouts/aviary/activities/traffic/gatewayapi"
	"github.com/aviary-rollouts/aviary/activities/traffic/istio"
	routertraffic "github.com/aviary-rollouts/aviary/activities/traffic/router"
	webhooktraffic "github.com/aviary-rollouts/aviary/activities/traffic/webhook"
	"github.com/aviary-rollouts/aviary/config"
	"github.com/aviary-rollouts/aviary/internal/httpx"
	"github.com/aviary-rollouts/aviary/internal/kube"
	"github.com/aviary-rollouts/aviary/internal/replicas"
)

// drivers constructs the traffic targets of the settings. A new data plane is a case here.
func drivers(targets map[string]config.TrafficTarget) (map[string]activities.Targets[traffic.Driver], error) {
	out := map[string]activities.Targets[traffic.Driver]{}
	for name, t := range targets {
		secure, err := clientTLS(t.TLS)
		if err != nil {
			return nil, fmt.Errorf("traffic target %s: %w", name, err)
		}
		var d traffic.Driver
		switch t.Driver {
		case "router":
			d, err = routertraffic.Open(replicas.Settings{
				Addresses: t.Gateways, DNS: t.GatewaysDNS, Token: t.Token.Reveal(), Timeout: t.Timeout, TLS: secure,
			})
		case config.DriverFlagd:
			d, err = openFlagd(t)
		case config.DriverWebhook:
			d, err = openWebhook(t, secure)
		case config.DriverIstio:
			d, err = istio.New(cluster(t))
		case config.DriverGatewayAPI:
			d, err = gatewayapi.New(cluster(t))
		default:
			err = fmt.Errorf("unknown driver %q", t.Driver)
		}
		if err != nil {
			return nil, fmt.Errorf("traffic target %s: %w", name, err)
		}
		if out[t.Driver] == nil {
			out[t.Driver] = activities.Targets[traffic.Driver]{}
		}
		out[t.Driver][name] = d
	}
	return out, nil
}

func openFlagd(t config.TrafficTarget) (traffic.Driver, error) {
	if t.ConfigMap == nil {
		return flagdtraffic.New(flagdtraffic.NewFile(string(t.File))), nil
	}
	client, err := kube.Open(cluster(t))
	if err != nil {
		return nil, err
	}
	m := t.ConfigMap
	return flagdtraffic.New(flagdtraffic.NewConfigMap(client.ConfigMap(m.Namespace, m.Name, m.Key))), nil
}

func openWebhook(t config.TrafficTarget, secure *tls.Config) (traffic.Driver, error) {
	transport := httpx.NewTransport(cmp.Or(t.Timeout, 5*time.Second))
	transport.TLSClientConfig = secure
	return webhooktraffic.New(webhooktraffic.Settings{
		URL: t.URL, Secret: t.Secret.Reveal(), Timeout: t.Timeout, Transport: withHeaders(t.Headers, transport),
	})
}

// cluster is where a target's objects are.
func cluster(t config.TrafficTarget) kube.Settings {
	return kube.Settings{Kubeconfig: string(t.Kubeconfig), Context: t.Context, Timeout: t.Timeout, Namespaces: t.Namespaces}
}

// providers constructs the metrics targets of the settings. A new source is a case here.
func providers(targets map[string]config.MetricsTarget) (map[string]activities.Targets[metrics.Provider], error) {
	out := map[string]activities.Targets[metrics.Provider]{}
	for name, t := range targets {
		secure, err := clientTLS(t.TLS)
		if err != nil {
			return nil, fmt.Errorf("metrics target %s: %w", name, err)
		}
		var p metrics.Provider
		switch t.Provider {
		case "router":
			p, err = routermetrics.Open(replicas.Settings{
				Addresses: t.Gateways, DNS: t.GatewaysDNS, Token: t.Token.Reveal(), Timeout: t.Timeout, TLS: secure,
			})
		case "prometheus":
			p, err = prommetrics.New(prommetrics.Settings{URL: t.Address, Token: t.Token.Reveal(), Timeout: t.Timeout, TLS: secure})
		case config.ProviderHTTP:
			p, err = httpmetrics.New(httpmetrics.Settings{
				URL: t.Address, Token: t.Token.Reveal(), TokenHeader: t.TokenHeader, User: t.User, Delay: t.Delay, Timeout: t.Timeout, TLS: secure,
			})
		case config.ProviderSQL:
			p, err = sqlmetrics.New(sqlmetrics.Settings{DSN: t.DSN.Reveal(), Delay: t.Delay, Timeout: t.Timeout})
		default:
			err = fmt.Errorf("unknown provider %q", t.Provider)
		}
		if err != nil {
			return nil, fmt.Errorf("metrics target %s: %w", name, err)
		}
		if out[t.Provider] == nil {
			out[t.Provider] = activities.Targets[metrics.Provider]{}
		}
		out[t.Provider][name] = p
	}
	return out, nil
}

// notifiers constructs the notify targets of the settings. A new way to tell people is a case here.
func notifiers(targets map[string]config.NotifyTarget, log *slog.Logger) (activities.Notifiers, error) {
	out := activities.Notifiers{
		Slack: activities.Targets[notify.Notifier]{}, Webhook: activities.Targets[notify.Notifier]{}, Log: lognotify.New(log),
	}
	for name, t := range targets {
		var err error
		switch {
		case t.Slack != nil:
			out.Slack[name], err = slack.New(slack.Settings{Token: t.Slack.Token.Reveal(), APIURL: t.Slack.APIURL})
		case t.Webhook != nil:
			out.Webhook[name], err = webhook.New(webhook.Settings{
				URL: t.Webhook.URL, Secret: t.Webhook.Secret.Reveal(), Transport: withHeaders(t.Webhook.Headers, httpx.NewTransport(10*time.Second)),
			})
		default:
			err = fmt.Errorf("want slack or webhook")
		}
		if err != nil {
			return out, fmt.Errorf("notify target %s: %w", name, err)
		}
	}
	return out, nil
}

// clientTLS is what the settings say, or nil where they say nothing.
func clientTLS(s *config.ClientTLS) (*tls.Config, error) {
	if s == nil {
		return nil, nil
	}
	return httpx.TLS{CAFile: string(s.CA), CertFile: string(s.Cert), KeyFile: string(s.Key), ServerName: s.ServerName}.Config()
}

// headers adds fixed headers to every request.
type headers struct {
	fixed map[string]string
	next  http.RoundTripper
}

func withHeaders(fixed map[string]string, next http.RoundTripper) http.RoundTripper {
	if len(fixed) == 0 {
		return next
	}
	return headers{fixed, next}
}

func (h headers) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	for k, v := range h.fixed {
		r.Header.Set(k, v)
	}
	return h.next.RoundTrip(r)
}
