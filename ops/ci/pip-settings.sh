# What pip is configured for, as uv's environment variables; what is set for uv already is kept.

setting() { # the value of one of pip's options, by pip's order of precedence
  local scope value
  for scope in :env: install global; do
    value=$(sed -nE "s/^$scope\.$1=['\"](.*)['\"]\$/\1/p" <<<"$pip_settings")
    [[ -z $value ]] || { echo "${value//\\n/ }"; return; }
  done
}

export_default() { [[ -z $2 || -n ${!1:-} ]] || export "$1=$2"; }

inherit_pip() { # gives uv what pip is configured for ("$@" is pip): index, certificate, proxy
  pip_settings=$("$@" config list 2>/dev/null) || return 0
  local links
  links=$(setting find-links)
  [[ -n ${UV_INDEX_URL:-} ]] || export_default UV_DEFAULT_INDEX "$(setting index-url)"
  export_default UV_EXTRA_INDEX_URL "$(setting extra-index-url)"
  [[ -z ${UV_EXTRA_INDEX_URL:-} ]] || export_default UV_INDEX_STRATEGY unsafe-best-match # all indexes alike, as with pip
  export_default UV_FIND_LINKS "${links// /,}"
  export_default UV_INSECURE_HOST "$(setting trusted-host)"
  export_default SSL_CERT_FILE "$(setting cert)"
  [[ ! -s /etc/ssl/certs/ca-certificates.crt ]] || export_default UV_SYSTEM_CERTS true # pip's default, too
  export_default SSL_CLIENT_CERT "$(setting client-cert)"
  export_default HTTPS_PROXY "$(setting proxy)"
  export_default HTTP_PROXY "$(setting proxy)"
}
