import * as cache from '@actions/cache'
import { mkdirSync, writeFileSync } from 'node:fs'

mkdirSync('deps', { recursive: true })
writeFileSync('deps/file', 'what a job has made')
const id = await cache.saveCache(['deps'], 'deps-1')
console.log(id > 0 ? 'saved it' : 'did not save it')
