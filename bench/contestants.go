package main

import (
	"fmt"
	"os"
)

const adminToken = "bench-admin-token-of-one-run"

// direct is the agent without a proxy: what the machine and the load generator cost by themselves.
const direct = "direct"

// contestants are set up as a careful operator would: connections to the agents are kept, two workers or threads, no access
// log. Aviary alone has its features on.
func contestants() []contestant {
	return []contestant{
		{name: direct},
		{
			name: "aviary", program: built("gateway"), version: []string{"-version"}, ready: renew,
			settings: func(p place) map[string]string { return map[string]string{"gateway.yaml": aviarySettings(p)} },
			args:     func(place) []string { return []string{"--config", "gateway.yaml"} },
			env:      []string{"AVIARY_ADMIN_TOKEN=" + adminToken},
		},
		{
			name: "nginx", program: inPath("nginx"), version: []string{"-v"},
			settings: func(p place) map[string]string { return map[string]string{"nginx.conf": nginxSettings(p)} },
			args:     func(p place) []string { return []string{"-p", p.dir, "-c", p.dir + "/nginx.conf", "-e", "stderr"} },
		},
		{
			name: "haproxy", program: inPath("haproxy"), version: []string{"-v"},
			settings: func(p place) map[string]string { return map[string]string{"haproxy.cfg": haproxySettings(p)} },
			args:     func(place) []string { return []string{"-db", "-f", "haproxy.cfg"} },
		},
		{
			name: "caddy", program: built("bench/caddy-*"),
			settings: func(p place) map[string]string { return map[string]string{"Caddyfile": caddySettings(p)} },
			args:     func(place) []string { return []string{"run", "--config", "Caddyfile"} },
		},
		{
			name: "traefik", program: built("bench/traefik-*"),
			settings: func(p place) map[string]string { return map[string]string{"dynamic.yaml": traefikSettings(p)} },
			args: func(p place) []string {
				return []string{
					"--entrypoints.web.address=" + p.listen, "--providers.file.filename=dynamic.yaml", "--log.level=ERROR",
					"--serverstransport.maxidleconnsperhost=256", "--global.checknewversion=false", "--global.sendanonymoususage=false",
				}
			},
		},
		{
			name: "reverseproxy", program: func(string) (string, error) { return os.Executable() },
			settings: func(place) map[string]string { return nil },
			args:     func(p place) []string { return []string{"reverseproxy", p.listen, p.stable, p.canary} },
		},
	}
}

func aviarySettings(p place) string {
	return fmt.Sprintf(`listen: %s
admin_listen: %s
admin_token_env: AVIARY_ADMIN_TOKEN
state_file: state.json
access_log: {sample: 0.01}
agents:
  bench:
    stable: v1
    versions:
      v1: {url: "http://%s"}
      v2: {url: "http://%s"}
`, p.listen, p.admin, p.stable, p.canary)
}

func nginxSettings(p place) string {
	return fmt.Sprintf(`daemon off;
user root;
worker_processes 2;
worker_rlimit_nofile 16384;
pid nginx.pid;
error_log stderr warn;
events { worker_connections 8192; }
http {
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  keepalive_requests 1000000;
  upstream stable { server %s; keepalive 128; keepalive_requests 1000000; }
  upstream canary { server %s; keepalive 128; keepalive_requests 1000000; }
  split_clients "$http_x_conversation_id" $version { 5%% canary; * stable; }
  server {
    listen %s backlog=4096;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $host;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_read_timeout 1h;
    location / { proxy_pass http://$version; }
    location ~ /(events|idle)$ { proxy_buffering off; proxy_pass http://$version; }
  }
}
`, p.stable, p.canary, p.listen)
}

func haproxySettings(p place) string {
	return fmt.Sprintf(`global
  maxconn 8192
  nbthread 2
defaults
  mode http
  option forwardfor
  option http-no-delay
  http-reuse always
  timeout connect 5s
  timeout client 1h
  timeout server 1h
frontend web
  bind %s
  default_backend agents
backend agents
  balance hdr(X-Conversation-ID)
  hash-type consistent
  server stable %s weight 95
  server canary %s weight 5
`, p.listen, p.stable, p.canary)
}

func caddySettings(p place) string {
	return fmt.Sprintf(`{
	admin off
	auto_https off
	persist_config off
}
http://%s {
	reverse_proxy %s %s {
		lb_policy weighted_round_robin 95 5
		transport http {
			keepalive_idle_conns_per_host 256
		}
	}
}
`, p.listen, p.stable, p.canary)
}

func traefikSettings(p place) string {
	return fmt.Sprintf(`http:
  routers:
    web: {rule: "PathPrefix(`+"`/`"+`)", entryPoints: [web], service: split}
  services:
    split:
      weighted:
        services:
          - {name: stable, weight: 95}
          - {name: canary, weight: 5}
    stable: {loadBalancer: {servers: [{url: "http://%s"}]}}
    canary: {loadBalancer: {servers: [{url: "http://%s"}]}}
`, p.stable, p.canary)
}
