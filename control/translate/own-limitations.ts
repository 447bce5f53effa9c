import { type Limitation, type MeshObject, MODEL_DEFAULTS, Model } from '../model/index.js';
import { translateAuthorization } from './policies/authorization.js';
import { translatePeerAuthentication } from './policies/peer-authentication.js';
import type { TranslateOptions } from './types.js';

/** What of an object is not in force as written, whatever else there is: what can be said of it alone, before it is there. */
export function ownLimitationsOf(object: MeshObject, options: TranslateOptions): readonly Limitation[] {
  switch (object.kind) {
    case 'AuthorizationPolicy': {
      // As if all that it names were there.
      const boundTargets = object.targets.filter(({ kind }) => kind === 'Service' || kind === 'ServiceEntry');
      return translateAuthorization({ policy: object, boundTargets, gaps: [] }, options).limitations;
    }
    case 'PeerAuthentication': {
      const alone = new Model({ ...MODEL_DEFAULTS, ...options }, { onChange: () => {} });
      return translatePeerAuthentication(object, alone).limitations;
    }
    default:
      return 'limits' in object ? object.limits : [];
  }
}
