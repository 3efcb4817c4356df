variable "CACHE_TO" { default = "" }
variable "CACHE_FROM" { default = "" }
variable "OUT" { default = "out" }

group "default" {
  targets = ["api", "web", "worker"]
}

target "shared" {
  context = "."
}

target "api" {
  inherits   = ["shared"]
  target     = "api"
  output     = ["type=local,dest=${OUT}/api"]
  cache-to   = CACHE_TO == "" ? [] : ["${CACHE_TO},scope=api"]
  cache-from = CACHE_FROM == "" ? [] : ["${CACHE_FROM},scope=api"]
}

target "web" {
  inherits   = ["shared"]
  target     = "web"
  output     = ["type=local,dest=${OUT}/web"]
  cache-to   = CACHE_TO == "" ? [] : ["${CACHE_TO},scope=web"]
  cache-from = CACHE_FROM == "" ? [] : ["${CACHE_FROM},scope=web"]
}

target "worker" {
  inherits   = ["shared"]
  target     = "worker"
  output     = ["type=local,dest=${OUT}/worker"]
  cache-to   = CACHE_TO == "" ? [] : ["${CACHE_TO},scope=worker"]
  cache-from = CACHE_FROM == "" ? [] : ["${CACHE_FROM},scope=worker"]
}
