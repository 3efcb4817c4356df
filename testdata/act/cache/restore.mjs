import * as cache from '@actions/cache'
import { appendFileSync, readFileSync } from 'node:fs'

const key = await cache.restoreCache(['deps'], 'deps-1', ['deps-'])
appendFileSync(process.env.GITHUB_OUTPUT, `key=${key ?? 'nothing'}\n`)
if (key) console.log(`found ${readFileSync('deps/file', 'utf8')}`)
