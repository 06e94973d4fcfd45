module github.com/aviary-rollouts/aviary/testkit/kube/cluster

go 1.26.0
